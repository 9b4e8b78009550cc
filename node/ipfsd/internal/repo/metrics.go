package repo

import "github.com/prometheus/client_golang/prometheus"

var corruptBlocks = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "shoal_ipfsd_corrupt_blocks_total",
	Help: "Blocks found on disk with another hash than their name, and removed.",
})

func init() { prometheus.MustRegister(corruptBlocks) }
