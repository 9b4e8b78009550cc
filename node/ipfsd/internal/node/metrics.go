package node

import (
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

var peersTotal = prometheus.NewDesc("ipfs_p2p_peers_total", "Number of connected peers", []string{"transport"}, nil)

// peerCount counts the connected peers by transport when it is asked.
type peerCount struct{ swarm *swarm.Swarm }

func (peerCount) Describe(out chan<- *prometheus.Desc) { out <- peersTotal }

func (p peerCount) Collect(out chan<- prometheus.Metric) {
	counts := map[string]float64{"/ip4/tcp": 0}
	seen := map[string]bool{}
	for _, conn := range p.swarm.Conns() {
		id := string(conn.RemotePeer())
		if seen[id] {
			continue
		}
		seen[id] = true
		name := ""
		ma.ForEach(conn.RemoteMultiaddr(), func(c ma.Component) bool {
			name += "/" + c.Protocol().Name
			return true
		})
		counts[name]++
	}
	for name, value := range counts {
		out <- prometheus.MustNewConstMetric(peersTotal, prometheus.GaugeValue, value, name)
	}
}
