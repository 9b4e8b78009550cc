package rpc

import (
	"errors"
	"fmt"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/multiformats/go-multibase"
)

var pubsubCommands = map[string]command{
	"pubsub/pub":   {minArgs: 1, maxArgs: 1, body: body{"data", pubsub.DefaultMaxMessageSize + maxMultipartOverhead}, run: messages(pubsubPublish)},
	"pubsub/sub":   {minArgs: 1, maxArgs: 1, run: messages(pubsubSubscribe)},
	"pubsub/ls":    {run: messages(pubsubList)},
	"pubsub/peers": {maxArgs: 1, run: messages(pubsubPeers)},
}

// messages refuses where the configuration has not switched pubsub on, as Kubo does.
func messages(run func(*call) error) func(*call) error {
	return func(c *call) error {
		if c.node.PubSub == nil {
			return errors.New("experimental pubsub feature not enabled: set Pubsub.Enabled in the configuration")
		}
		return run(c)
	}
}

// parseTopic reads a topic in multibase: topics are bytes, and a URL is not.
func parseTopic(given string) (string, error) {
	_, topic, err := multibase.Decode(given)
	if err != nil {
		return "", fmt.Errorf("URL arg must be multibase encoded: %w", err)
	}
	return string(topic), nil
}

func inMultibase(data []byte) (string, error) {
	return multibase.Encode(multibase.Base64url, data)
}

func pubsubPublish(c *call) error {
	topic, err := parseTopic(c.args[0])
	if err != nil {
		return err
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	//lint:ignore SA1019 its successor would keep each topic open for ever; this joins none
	return c.node.PubSub.Publish(topic, data)
}

func pubsubSubscribe(c *call) error {
	topic, err := parseTopic(c.args[0])
	if err != nil {
		return err
	}
	//lint:ignore SA1019 as in pubsubPublish
	subscription, err := c.node.PubSub.Subscribe(topic)
	if err != nil {
		return err
	}
	defer subscription.Cancel()
	c.begin("application/json", "X-Chunked-Output")
	if err := c.flush(); err != nil {
		return err
	}
	for {
		message, err := subscription.Next(c)
		if err != nil {
			if c.Err() != nil {
				return nil // the reader hung up, or the daemon ends
			}
			return err
		}
		data, err := inMultibase(message.Data)
		if err != nil {
			return err
		}
		seqno, err := inMultibase(message.Seqno)
		if err != nil {
			return err
		}
		topics, err := inMultibase([]byte(message.GetTopic()))
		if err != nil {
			return err
		}
		err = c.emitNow(struct {
			From   string   `json:"from"`
			Data   string   `json:"data"`
			Seqno  string   `json:"seqno"`
			Topics []string `json:"topicIDs"`
		}{message.GetFrom().String(), data, seqno, []string{topics}})
		if err != nil {
			return err
		}
	}
}

func pubsubList(c *call) error {
	reply := stringsReply{Strings: []string{}}
	for _, topic := range c.node.PubSub.GetTopics() {
		text, err := inMultibase([]byte(topic))
		if err != nil {
			return err
		}
		reply.Strings = append(reply.Strings, text)
	}
	return c.emit(reply)
}

func pubsubPeers(c *call) error {
	topic := ""
	if len(c.args) == 1 {
		var err error
		if topic, err = parseTopic(c.args[0]); err != nil {
			return err
		}
	}
	reply := stringsReply{Strings: []string{}}
	for _, id := range c.node.PubSub.ListPeers(topic) {
		reply.Strings = append(reply.Strings, id.String())
	}
	return c.emit(reply)
}
