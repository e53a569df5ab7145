// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"path/filepath"
	"strconv"
)

// Metrics is the table [metrics].
type Metrics struct {
	// Address is HOST:PORT, or the absolute path of a unix socket of at most
	// MaxSocketPath bytes; empty means that there are no metrics.
	Address string `toml:"address" comment:"Where to serve: an address as \"127.0.0.1:1338\", or the path of a unix socket. Empty: nowhere."`
}

func (p *problems) metrics(key string, c Config) {
	address := c.Metrics.Address
	switch {
	case address == "":
	case filepath.IsAbs(address):
		p.socket(key, address)
		if address == c.Address || address == c.ContainerdAddress {
			p.add("%s is %q, which is another socket's address", key, address)
		}
	default:
		p.hostPort(key, address)
	}
}

func (p *problems) hostPort(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.add("%s is %q: it has to be HOST:PORT with a number as port, or the absolute path of a socket", key, value)
	}
	p.text(key, value)
}
