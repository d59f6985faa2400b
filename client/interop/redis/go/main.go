// go-redis through every case of cases.txt and through the leader's end. Started by run.sh one folder up;
// python/support.py there says more about what a program is given and what it reports.
package main

import (
	"flag"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// What run.sh asks for.
type setting struct {
	addresses []string
	protocol  int
	part      string
	faults    faults
}

// The options of a client of the turn-th door.
func (s setting) options(turn int) *redis.Options {
	return &redis.Options{Addr: s.addresses[turn%len(s.addresses)], Protocol: s.protocol}
}

func main() {
	var s setting
	var addresses string
	flag.StringVar(&addresses, "addresses", "", "host:port of each door, with commas; the leader's first")
	flag.IntVar(&s.protocol, "protocol", 3, "2 or 3")
	flag.StringVar(&s.part, "part", "plain", "plain or failover")
	flag.StringVar((*string)(&s.faults), "fault-dir", "", "where run.sh and the program tell how far they are")
	flag.Parse()
	s.addresses = strings.Split(addresses, ",")
	// It writes a line for every connection that is refused.
	logging.Disable()
	report := &report{client: "go-redis", version: redis.Version(), setting: s}
	if s.part == "failover" {
		report.run("", func() { failover(report) })
	} else {
		plain(report)
	}
	report.end()
}
