// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// MaxSocketPath is the longest path of a unix socket in bytes: sun_path has
// 108 with the terminating NUL, see unix(7).
const MaxSocketPath = 107

// MaxUnpackAhead bounds the memory for layers that nobody asked for yet.
const MaxUnpackAhead = 16

var (
	logLevels  = []string{"trace", "debug", "info", "warn", "error", "fatal", "panic"}
	logFormats = []string{LogFormatText, LogFormatJSON}
	idMappings = []string{IDMappedMountsAuto, IDMappedMountsOff}
	durability = []string{DurabilityCommit, DurabilityNone}
	sharings   = []string{SharingAll, SharingNamespace, SharingOff}
	programs   = []string{MountProgramAuto, MountProgramKernel, MountProgramFuse}
	verifies   = []string{VerifyFull, VerifyMetadata, VerifyNone}
	ownerships = []string{OwnershipReal, OwnershipOverrideStat}

	// ownOptions are the overlay options the snapshotter (or containerd, for
	// the two id maps) sets itself. A second one would replace the directories
	// of a container by others, see the kernel's overlayfs.rst.
	ownOptions = []string{"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "uidmap", "gidmap"}
)

// Validate checks every value. The error is InvalidArgument and names all
// keys that are wrong, with what each may be.
func (c Config) Validate() error {
	var p problems
	if c.Version != Version {
		p.add("version is %d: this build reads version %d", c.Version, Version)
	}
	p.path("root", c.Root)
	p.socket("address", c.Address)
	p.socket("containerd_address", c.ContainerdAddress)
	if c.Address == c.ContainerdAddress {
		p.add("address and containerd_address are both %q: containerd serves its own socket", c.Address)
	}
	if c.ContentRoot != "" {
		p.path("content_root", c.ContentRoot)
	}
	p.text("group", c.Group)
	p.oneOf("log_level", c.LogLevel, logLevels)
	p.oneOf("log_format", c.LogFormat, logFormats)
	p.snapshotter("snapshotter.", c.Snapshotter)
	p.limits("limits.", c.Limits)
	p.metrics("metrics.address", c)
	p.scrub("scrub.", c.Scrub)
	return p.err()
}

// Validate checks the options of the snapshotter alone, for a snapshotter
// that is compiled into containerd. The error is InvalidArgument and names
// all keys that are wrong.
func (s Snapshotter) Validate() error {
	var p problems
	p.snapshotter("", s)
	return p.err()
}

// problems collects what is wrong, so that one start shows all of it.
type problems []string

func (p *problems) add(format string, args ...any) {
	*p = append(*p, fmt.Sprintf(format, args...))
}

func (p *problems) err() error {
	if len(*p) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.Join(*p, "; "), errdefs.ErrInvalidArgument)
}

// text refuses what can't be shown in one line or sent to containerd: mounts
// travel as protobuf strings, which have to be UTF-8.
func (p *problems) text(key, value string) {
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		p.add("%s is %q: it has to be UTF-8 without control characters", key, value)
	}
}

// path wants an absolute path in its shortest form other than "/". Anything
// else names one directory in several ways, and the lock of a root and the
// comparison of mounts go by name.
func (p *problems) path(key, value string) {
	switch {
	case !filepath.IsAbs(value):
		p.add("%s is %q: it has to be an absolute path", key, value)
	case value == "/":
		p.add("%s is \"/\": name a directory of its own", key)
	case filepath.Clean(value) != value:
		p.add("%s is %q: write it as %q", key, value, filepath.Clean(value))
	}
	p.text(key, value)
}

func (p *problems) socket(key, value string) {
	p.path(key, value)
	if len(value) > MaxSocketPath {
		p.add("%s has %d bytes: the path of a socket has at most %d", key, len(value), MaxSocketPath)
	}
}

func (p *problems) oneOf(key, value string, known []string) {
	if !slices.Contains(known, value) {
		p.add("%s is %q: it has to be one of %s", key, value, strings.Join(known, ", "))
	}
}

func (p *problems) snapshotter(prefix string, s Snapshotter) {
	p.oneOf(prefix+"idmapped_mounts", s.IDMappedMounts, idMappings)
	p.oneOf(prefix+"mount_program", s.MountProgram, programs)
	p.oneOf(prefix+"durability", s.Durability, durability)
	p.oneOf(prefix+"sharing", s.Sharing, sharings)
	if s.UnpackAhead < 0 || s.UnpackAhead > MaxUnpackAhead {
		p.add("%sunpack_ahead is %d: it has to be 0 to %d", prefix, s.UnpackAhead, MaxUnpackAhead)
	}
	p.oneOf(prefix+"verify", s.Verify, verifies)
	p.oneOf(prefix+"ownership", s.Ownership, ownerships)
	for i, path := range s.AdditionalStores {
		p.path(fmt.Sprintf("%sadditional_stores[%d]", prefix, i), path)
	}
	for i, option := range s.MountOptions {
		p.mountOption(fmt.Sprintf("%smount_options[%d]", prefix, i), option)
	}
}

// mountOption wants exactly one option: a comma or a space would smuggle in a
// second one past the check of its name.
func (p *problems) mountOption(key, option string) {
	name, _, _ := strings.Cut(option, "=")
	switch {
	case name == "":
		p.add("%s is %q: it has no name", key, option)
	case strings.Contains(option, ","):
		p.add("%s is %q: write one option an element", key, option)
	case strings.ContainsFunc(name, unicode.IsSpace):
		p.add("%s is %q: the name of an option has no spaces", key, option)
	case slices.Contains(ownOptions, name):
		p.add("%s is %q: %s is set by the snapshotter", key, option, name)
	}
	p.text(key, option)
}
