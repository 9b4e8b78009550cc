package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// lineOf gives the line on which the value of a key such as Peering.Peers[1].ID begins, or of the nearest object
// around it when the key is not there. It is 0 for what is no JSON.
func lineOf(data []byte, key string) int {
	l := locator{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), key: strings.ToLower(key)}
	_ = l.value("") // the text was read before; what cannot be read has no line
	return l.line
}

type locator struct {
	data    []byte
	decoder *json.Decoder
	key     string
	line    int
}

func (l *locator) value(path string) error {
	token, err := l.decoder.Token()
	if err != nil {
		return err
	}
	if rest, within := strings.CutPrefix(l.key, path); within && (path == "" || rest == "" || rest[0] == '.' || rest[0] == '[') {
		l.line = lineAt(l.data, l.decoder.InputOffset())
	}
	switch token {
	case json.Delim('{'):
		for l.decoder.More() {
			name, err := l.decoder.Token()
			if err != nil {
				return err
			}
			// encoding/json does not tell upper from lower case in names; neither does this.
			if err := l.value(strings.TrimPrefix(path+"."+strings.ToLower(fmt.Sprint(name)), ".")); err != nil {
				return err
			}
		}
	case json.Delim('['):
		for i := 0; l.decoder.More(); i++ {
			if err := l.value(fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	_, err = l.decoder.Token() // the closing bracket
	return err
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}
