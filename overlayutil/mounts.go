// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
)

// Plan is everything that a snapshot's mounts depend on. All paths are absolute
// and clean.
type Plan struct {
	// Lowers are the layer directories, top first, as Lowers returns them.
	Lowers []string
	// Upper and Work are the writable directory and overlay's scratch directory
	// beside it. Both are empty for a read-only view.
	Upper, Work string
	// Empty is the path of an empty directory: what an empty view shows, the
	// second lower of a one-layer view, the only lower of a forced overlay.
	Empty string
	// ForceOverlay asks for an overlay mount even without lowers. Extract
	// snapshots need it: containerd's walking differ would leave the OCI names of
	// whiteouts in a bind mount, and through an overlay it converts them.
	ForceOverlay bool
	// Options are further overlay options (index=off, userxattr, the user's
	// mount_options). They are not used on bind mounts.
	Options []string
	// Type is the type of overlay mounts: FuseOverlayfs, or empty for the kernel's.
	Type string
	// UIDMap and GIDMap are id mappings in canonical form, "c:h:s[,c:h:s]", or
	// both empty.
	UIDMap, GIDMap string
}

// Mounts returns the mounts of the plan in the form that containerd's overlay
// snapshotter returns them: a bind of Upper when there is nothing below it, a
// read-only bind of Empty when there is nothing at all, otherwise one overlay.
// A single layer without an upper is an overlay too, with Empty below it: the
// layer can hold whiteouts, which only an overlay hides, and the kernel refuses
// one lower directory alone (EINVAL).
//
// A plan that does not make sense is ErrInvalidArgument. A stack that the kernel
// could not mount, or would mount without some of its layers, is
// ErrFailedPrecondition.
func (p Plan) Mounts() ([]mount.Mount, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if source, access := p.bindSource(); source != "" {
		options := append(p.mapOptions(), access, "rbind")
		return []mount.Mount{{Type: "bind", Source: source, Options: options}}, nil
	}
	options, err := p.overlayOptions()
	if err != nil {
		return nil, err
	}
	return []mount.Mount{{Type: cmp.Or(p.Type, "overlay"), Source: "overlay", Options: options}}, nil
}

// bindSource returns what a plan without an overlay binds, and how.
func (p Plan) bindSource() (source, access string) {
	switch {
	case len(p.Lowers) > 0:
		return "", ""
	case p.Upper == "":
		return p.Empty, "ro"
	case p.ForceOverlay:
		return "", ""
	}
	return p.Upper, "rw"
}

// stack is the list of lower directories that the kernel gets.
func (p Plan) stack() []string {
	switch {
	case len(p.Lowers) == 0:
		return []string{p.Empty}
	case len(p.Lowers) == 1 && p.Upper == "":
		return []string{p.Lowers[0], p.Empty}
	}
	return p.Lowers
}

// overlayOptions returns the options of the overlay mount in containerd's order.
func (p Plan) overlayOptions() ([]string, error) {
	lowers := p.stack()
	check := p.checkStack
	if p.Type == FuseOverlayfs {
		check = p.checkFuse
	}
	if err := check(lowers); err != nil {
		return nil, err
	}
	return append(p.mapOptions(), p.data(escapeAll(lowers))...), nil
}

func (p Plan) mapOptions() []string {
	if p.UIDMap == "" {
		return nil
	}
	return []string{"uidmap=" + p.UIDMap, "gidmap=" + p.GIDMap}
}

func (p Plan) upperOptions() []string {
	if p.Upper == "" {
		return nil
	}
	return []string{"workdir=" + EscapeOption(p.Work), "upperdir=" + EscapeOption(p.Upper)}
}

func lowerOption(elements []string) string {
	return "lowerdir=" + strings.Join(elements, ":")
}

func escapeAll(paths []string) []string {
	escaped := make([]string, len(paths))
	for i, path := range paths {
		escaped[i] = EscapeLower(path)
	}
	return escaped
}

func (p Plan) validate() error {
	if (p.Upper == "") != (p.Work == "") {
		return invalidArgument("a plan needs both or neither of an upper (%q) and a work directory (%q)", p.Upper, p.Work)
	}
	if p.Type != "" && p.Type != FuseOverlayfs {
		return invalidArgument("a plan has mounts of type %q or of the kernel's overlay, not %q", FuseOverlayfs, p.Type)
	}
	if err := p.validatePaths(); err != nil {
		return err
	}
	if err := validateOptions(p.Options); err != nil {
		return err
	}
	if p.UIDMap == "" && p.GIDMap == "" {
		return nil
	}
	_, err := ParseIDMap(p.UIDMap, p.GIDMap)
	return err
}

func (p Plan) validatePaths() error {
	paths := append([]string{p.Empty}, p.Lowers...)
	if p.Upper != "" {
		paths = append(paths, p.Upper, p.Work)
	}
	for _, path := range paths {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
			return invalidArgument("the plan's path %q is not an absolute, clean path", path)
		}
	}
	return nil
}

// reservedOptions would change which directories are mounted, or how their
// owners are mapped, behind the plan's back.
var reservedOptions = []string{"lowerdir", "upperdir", "workdir", "datadir", "uidmap", "gidmap"}

func validateOptions(options []string) error {
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		for _, reserved := range reservedOptions {
			if strings.HasPrefix(option, reserved) {
				return invalidArgument("the overlay option %q cannot be set by hand: remove it from the mount options", option)
			}
		}
		if strings.ContainsRune(option, 0) {
			return invalidArgument("the overlay option %q has a NUL byte: remove it from the mount options", option)
		}
	}
	return nil
}
