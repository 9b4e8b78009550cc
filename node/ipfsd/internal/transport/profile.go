// Package transport is how the daemon speaks TCP: what it tells the kernel about dead links, how soon it dials
// and how soon it asks again. These constants decide how a swarm recovers from a cut; they are chosen by name.
package transport

import (
	"fmt"
	"time"
)

// Profile is one choice of the constants. Zero means: as the libraries and the kernel have it.
type Profile struct {
	Name string
	// UserTimeout is TCP_USER_TIMEOUT: unacknowledged for so long is dead. The kernel judges by acknowledgements and
	// so never takes a slow link for a dead one, which a ping over a busy link would.
	UserTimeout time.Duration
	// RTOMax is TCP_RTO_MAX_MS: retransmissions, of SYNs too, are at most so far apart. Without it the first retry
	// after a cut of length T comes up to T after the heal.
	RTOMax time.Duration
	// KeepAlive is yamux' interval. Not to judge by: it keeps something in flight for the kernel to judge by, so that
	// both ends notice, also the one that only receives.
	KeepAlive time.Duration
	// WriteTimeout is yamux', longer than UserTimeout so that the kernel's verdict comes first.
	WriteTimeout time.Duration
	// Redial is how often a missing peer of Peering.Peers is dialled; zero leaves it to Kubo's own back-off.
	Redial time.Duration
	// DialTimeout bounds one dial, in which the kernel repeats the SYN.
	DialTimeout time.Duration
	// Rebroadcast is how often Bitswap asks everybody again for what does not come.
	Rebroadcast time.Duration
	// AnswerPatience is how long at least Bitswap waits for a block before it asks another peer as well. Its own 50 ms
	// take a provider that serves many for one that refuses, and then the block comes twice.
	AnswerPatience time.Duration
	// PassOnDelay is how long a fetched block is kept from peers that asked before we had it; see node/exchange.go.
	PassOnDelay time.Duration
	// OwnPeersUnlimited switches off libp2p's limit on connections from one address: a swarm's own peers come back
	// all at once after a heal.
	OwnPeersUnlimited bool
}

var profiles = []Profile{
	{
		// 15 s: on a slow link a full queue alone is 5 s long, and a keepalive that is dropped at its end once or twice
		// must still get through. With 6 s idle connections beside a busy one were declared dead at 0.25 Mbit.
		Name: "prompt", UserTimeout: 15 * time.Second, RTOMax: time.Second, KeepAlive: 2 * time.Second,
		WriteTimeout: 40 * time.Second, Redial: 500 * time.Millisecond, DialTimeout: 10 * time.Second,
		Rebroadcast: 5 * time.Second, AnswerPatience: 5 * time.Second, PassOnDelay: 300 * time.Millisecond,
		OwnPeersUnlimited: true,
	},
	{Name: "stock"},
	{
		// Never gives up: TCP_USER_TIMEOUT also replaces the kernel's own count of retries, so no sysctl is needed.
		Name: "patient", UserTimeout: time.Hour, RTOMax: time.Second, KeepAlive: 30 * time.Second,
		WriteTimeout: time.Hour, Redial: 500 * time.Millisecond, DialTimeout: 10 * time.Second,
		Rebroadcast: 5 * time.Second, AnswerPatience: 5 * time.Second, PassOnDelay: 300 * time.Millisecond,
		OwnPeersUnlimited: true,
	},
}

// Named gives the profile of that name; no name means the first, prompt.
func Named(name string) (Profile, error) {
	if name == "" {
		return profiles[0], nil
	}
	for _, p := range profiles {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("no transport is called %q; there are prompt, stock and patient", name)
}
