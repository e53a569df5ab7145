// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"time"
)

// Scrub is the table [scrub]: checking layers in the background.
type Scrub struct {
	// Interval is the time from the beginning of one round over all layers to that of
	// the next, as time.ParseDuration reads it; "0" means that there are none, and the
	// least is MinScrubInterval.
	Interval string `toml:"interval" comment:"How often the files of all layers are held against what was extracted,\nfor example \"168h\". \"0\": never. Damage is logged, nothing is changed."`
	// Rate bounds what is read, in bytes a second; 0 means no limit.
	Rate int64 `toml:"rate" comment:"Bytes to read a second for that, at idle priority. 0: no limit."`
}

// MinScrubInterval is the least Scrub.Interval but 0.
const MinScrubInterval = time.Minute

// DefaultScrub is off, and gentle when it is switched on.
func DefaultScrub() Scrub { return Scrub{Interval: "0", Rate: 20 << 20} }

// Every is the interval; 0 means never, as does one that Validate refuses.
func (s Scrub) Every() time.Duration {
	d, err := time.ParseDuration(s.Interval)
	if err != nil {
		return 0
	}
	return d
}

func (p *problems) scrub(prefix string, s Scrub) {
	d, err := time.ParseDuration(s.Interval)
	if err != nil || (d != 0 && d < MinScrubInterval) {
		p.add("%sinterval is %q: it has to be 0, or a time of at least %v such as \"168h\"", prefix, s.Interval, MinScrubInterval)
	}
	p.number(prefix+"rate", s.Rate, 0, math.MaxInt64)
}
