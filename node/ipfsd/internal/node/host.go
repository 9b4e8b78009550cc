package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/sec"
	core "github.com/libp2p/go-libp2p/core/transport"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	basicconnmgr "github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/ipfsd/internal/config"
	"shoal/ipfsd/internal/transport"
)

// What one peer may open on us. A swarm's members are known and trusted with service, not with all of the memory.
const (
	maxConnsIn          = 1024
	maxConnsInPerPeer   = 16
	maxStreamsIn        = 32768
	maxStreamsInPerPeer = 8192
)

// Kubo's water marks for connections to peers that nobody protects.
const (
	defaultLowWater    = 32
	defaultHighWater   = 96
	defaultGracePeriod = 20 * time.Second
)

// libp2p is a host assembled by hand. The root package of go-libp2p would bring QUIC, WebRTC and WebTransport,
// which a private swarm cannot use.
type libp2p struct {
	host      *basichost.BasicHost
	swarm     *swarm.Swarm
	bandwidth *metrics.BandwidthCounter
}

func newLibp2p(c *config.Config, swarmKey []byte) (*libp2p, error) {
	profile := c.Transport()
	var psk pnet.PSK
	if swarmKey != nil {
		var err error
		if psk, err = pnet.DecodeV1PSK(bytes.NewReader(swarmKey)); err != nil {
			return nil, fmt.Errorf("swarm.key: %w; expected the lines /key/swarm/psk/1.0.0/, /base16/ and 64 hex digits", err)
		}
	} else if pnet.ForcePrivateNetwork {
		return nil, errors.New("privnet: private network was not configured but is enforced by the environment: LIBP2P_FORCE_PNET=1 and no swarm.key in the repository")
	}
	limits, err := newLimits(profile)
	if err != nil {
		return nil, err
	}
	peers, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(peers.AddPrivKey(c.ID(), c.Key()), peers.AddPubKey(c.ID(), c.Key().GetPublic())); err != nil {
		return nil, err
	}
	bus := eventbus.NewBus()
	options := []swarm.Option{
		swarm.WithResourceManager(limits),
		swarm.WithMetricsTracer(swarm.NewMetricsTracer()),
	}
	var bandwidth *metrics.BandwidthCounter
	if !c.Swarm.DisableBandwidthMetrics {
		bandwidth = metrics.NewBandwidthCounter()
		options = append(options, swarm.WithMetrics(bandwidth))
	}
	if profile.DialTimeout > 0 {
		options = append(options, swarm.WithDialTimeout(profile.DialTimeout), swarm.WithDialTimeoutLocal(profile.DialTimeout))
	}
	net, err := swarm.NewSwarm(c.ID(), peers, bus, options...)
	if err != nil {
		return nil, err
	}
	up, err := newUpgrader(c, psk, limits, profile)
	if err != nil {
		return nil, errors.Join(err, net.Close())
	}
	if err := net.AddTransport(transport.NewTCP(up, limits, profile)); err != nil {
		return nil, errors.Join(err, net.Close())
	}
	conns, err := newConnManager(c)
	if err != nil {
		return nil, errors.Join(err, net.Close())
	}
	host, err := basichost.NewHost(net, &basichost.HostOpts{
		EventBus: bus, ConnManager: conns, UserAgent: AgentVersion, ProtocolVersion: "ipfs/0.1.0", EnablePing: true,
		EnableMetrics: true, PrometheusRegisterer: prometheus.DefaultRegisterer,
	})
	if err != nil {
		return nil, errors.Join(err, net.Close())
	}
	for _, address := range c.Listen() {
		if err := net.Listen(address); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s (Addresses.Swarm): %w", address, err), host.Close())
		}
	}
	host.Start()
	if profile.RTOMax > 0 && !transport.SupportsRTOMax() {
		slog.Warn("this kernel cannot cap TCP's retransmission timer (TCP_RTO_MAX_MS, Linux 6.15): recovery after a cut is slower", "transport", profile.Name)
	}
	return &libp2p{host, net, bandwidth}, nil
}

func newLimits(profile transport.Profile) (network.ResourceManager, error) {
	rcmgr.MustRegisterWith(prometheus.DefaultRegisterer)
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{ConnsInbound: maxConnsIn, StreamsInbound: maxStreamsIn},
		PeerDefault: rcmgr.ResourceLimits{
			ConnsInbound: maxConnsInPerPeer, StreamsInbound: maxStreamsInPerPeer,
		},
	}.Build(rcmgr.InfiniteLimits)
	var options []rcmgr.Option
	if profile.OwnPeersUnlimited {
		options = append(options, rcmgr.WithConnRateLimiters(&rate.Limiter{}),
			rcmgr.WithLimitPerSubnet(
				[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: math.MaxInt}},
				[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 128, ConnCount: math.MaxInt}}))
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), options...)
}

func newUpgrader(c *config.Config, psk pnet.PSK, limits network.ResourceManager, profile transport.Profile) (core.Upgrader, error) {
	mux := *yamux.DefaultTransport
	if profile.KeepAlive > 0 {
		mux.KeepAliveInterval = profile.KeepAlive
	}
	if profile.WriteTimeout > 0 {
		mux.ConnectionWriteTimeout = profile.WriteTimeout
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: &mux}}
	overTLS, err := libp2ptls.New(libp2ptls.ID, c.Key(), muxers)
	if err != nil {
		return nil, err
	}
	overNoise, err := noise.New(noise.ID, c.Key(), muxers)
	if err != nil {
		return nil, err
	}
	return upgrader.New([]sec.SecureTransport{overTLS, overNoise}, muxers, psk, limits, nil)
}

func newConnManager(c *config.Config) (connmgr.ConnManager, error) {
	if c.Swarm.ConnMgr.Type == "none" {
		return connmgr.NullConnMgr{}, nil
	}
	low, high, grace := defaultLowWater, defaultHighWater, defaultGracePeriod
	if c.Swarm.ConnMgr.LowWater != nil {
		low = *c.Swarm.ConnMgr.LowWater
	}
	if c.Swarm.ConnMgr.HighWater != nil {
		high = *c.Swarm.ConnMgr.HighWater
	}
	if c.Swarm.ConnMgr.GracePeriod > 0 {
		grace = time.Duration(c.Swarm.ConnMgr.GracePeriod)
	}
	return basicconnmgr.NewConnManager(low, high, basicconnmgr.WithGracePeriod(grace))
}
