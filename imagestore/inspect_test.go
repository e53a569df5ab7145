// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

func TestHealthcheck(t *testing.T) {
	r := testregistry.Start(t)
	s := newStore(t)
	test := []string{"CMD-SHELL", "true"}
	for name, c := range map[string]struct {
		health *v1.HealthConfig
		want   *Healthcheck
	}{
		"none":     {nil, nil},
		"disabled": {&v1.HealthConfig{Test: []string{"NONE"}}, nil},
		"defaults": {&v1.HealthConfig{Test: test}, &Healthcheck{Test: test, Interval: 30, Timeout: 10, StartPeriod: 0, Retries: 3}},
		"all": {
			&v1.HealthConfig{Test: test, Interval: 90 * time.Second, Timeout: 1500 * time.Millisecond, StartPeriod: time.Minute, Retries: 7},
			&Healthcheck{Test: test, Interval: 90, Timeout: 1.5, StartPeriod: 60, Retries: 7},
		},
	} {
		img := withConfig(t, build(t, heavy("a", 100)), func(c2 *v1.ConfigFile) { c2.Config.Healthcheck = c.health })
		image := pull(t, s, PullOptions{Ref: r.Push(t, "health-"+name, img)})
		d, err := s.Describe(context.Background(), image)
		must(t, err)
		if !reflect.DeepEqual(d.Healthcheck, c.want) {
			t.Errorf("%s: %+v, want %+v", name, d.Healthcheck, c.want)
		}
	}
}

// What is not read of the configuration is there, too.
func TestConfigIsWhole(t *testing.T) {
	r := testregistry.Start(t)
	s := newStore(t)
	img := withConfig(t, build(t, heavy("a", 100)), func(c *v1.ConfigFile) {
		c.Author, c.Config.StopSignal, c.Config.OnBuild = "somebody", "SIGUSR1", []string{"RUN x"}
	})
	image := pull(t, s, PullOptions{Ref: r.Push(t, "whole", img)})
	d, err := s.Describe(context.Background(), image)
	must(t, err)
	raw, err := img.RawConfigFile()
	must(t, err)
	if string(d.Config) != string(raw) {
		t.Errorf("config %s, want %s", d.Config, raw)
	}
	manifest, err := img.RawManifest()
	must(t, err)
	if string(d.Manifest) != string(manifest) || !json.Valid(d.Manifest) {
		t.Errorf("manifest %s, want %s", d.Manifest, manifest)
	}
}
