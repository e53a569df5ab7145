#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what this checkout needs: packages from the distribution only when a
# command is missing, Go programs into .cache/bin unless the right version is there.
#
#   hack/deps.sh demo    what `make demo` runs
#   hack/deps.sh test    what `make test` runs (demo included)
#   hack/deps.sh lint    the linters
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly bin="$PWD/.cache/bin"
readonly containerd_version=v2.4.2
readonly containerd17_version=v1.7.35
readonly runc_version=v1.5.2
readonly rootlesskit_version=v2.3.6

# The tools' own modules must not see the caller's flags or workspace.
export GOWORK=off GOFLAGS=-buildvcs=false

say() { printf -- '--- deps: %s\n' "$*"; }
die() { printf -- '--- deps: ERROR: %s\n' "$*" >&2; exit 1; }

# Administrators' commands live in sbin, which a plain user's PATH may lack.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

wanted=()

# need COMMAND PACKAGE: remembers PACKAGE when COMMAND is not on the PATH.
need() {
	command -v "$1" >/dev/null 2>&1 || wanted+=("$2")
}

# need_path PATH PACKAGE: the same for a file without a command.
need_path() {
	[ -e "$1" ] || wanted+=("$2")
}

updated=
apt_update() {
	[ -n "$updated" ] && return
	say "apt-get update"
	apt-get update -qq || say "apt-get update failed; going on with the lists that are there"
	updated=yes
}

install_wanted() {
	[ ${#wanted[@]} -eq 0 ] && { say "distribution packages: all there"; return; }
	command -v apt-get >/dev/null 2>&1 ||
		die "missing: ${wanted[*]} (Debian names); install them with your distribution's package manager"
	[ "$(id -u)" -eq 0 ] || die "missing: ${wanted[*]}; run as root, or: sudo apt-get install ${wanted[*]}"
	apt_update
	say "apt-get install ${wanted[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" \
		</dev/null >/dev/null || die "apt-get could not install: ${wanted[*]}"
	wanted=()
}

# is_static PROGRAM: ldd says so in words, and by failing.
is_static() {
	local words
	[ -n "$1" ] && [ -x "$1" ] || return 1
	words=$(ldd "$1" 2>&1) || true
	[[ $words == *"not a dynamic"* || $words == *"statically linked"* ]]
}

# A dynamic busybox package conflicts with the static one, so the static program is
# taken out of its package instead of replacing something of the host.
install_busybox() {
	if is_static "$(command -v busybox)" || is_static "$bin/busybox"; then
		say "static busybox: there"
		return
	fi
	command -v apt-get >/dev/null 2>&1 || die "no static busybox found; put one at $bin/busybox"
	apt_update
	say "taking busybox out of the package busybox-static"
	local dir
	dir=$(mktemp -d)
	(
		cd "$dir"
		apt-get download -qq busybox-static 2>/dev/null
		dpkg -x ./busybox-static*.deb out
	) || die "could not download the package busybox-static"
	install -D -m 0755 "$(find "$dir/out" -type f -path '*/bin/busybox')" "$bin/busybox"
	rm -rf "$dir"
	is_static "$bin/busybox" || die "the busybox out of the package busybox-static is not a static program"
}

# has PROGRAM MODULE VERSION: is that program built from that module version?
has() {
	[ -x "$bin/$1" ] && go version -m "$bin/$1" 2>/dev/null |
		awk -v m="$2" -v v="$3" '($1 == "mod" || $1 == "dep") && $2 == m && $3 == v { ok = 1 } END { exit !ok }'
}

# same_go PROGRAM: a linter built with an older Go refuses newer sources.
same_go() {
	[ "$(go version "$bin/$1" 2>/dev/null | awk '{ print $2 }')" = "$(go env GOVERSION)" ]
}

install_containerd() {
	local program
	for program in containerd ctr containerd-shim-runc-v2; do
		if has "$program" github.com/containerd/containerd/v2 "$containerd_version"; then
			say "$program $containerd_version: there"
			continue
		fi
		say "building $program $containerd_version"
		CGO_ENABLED=0 GOBIN="$bin" go install -tags no_btrfs \
			"github.com/containerd/containerd/v2/cmd/$program@$containerd_version" || die "could not build $program"
	done
}

# containerd 1.7's go.mod has exclude lines, so `go install` refuses it. It needs its own
# shim: that of containerd 2.4 refuses to be started by it.
install_containerd17() {
	local module=github.com/containerd/containerd program output
	for program in containerd containerd-shim-runc-v2; do
		output=containerd17
		[ "$program" = containerd ] || output=containerd17-shim/$program
		if has "$output" "$module" "$containerd17_version"; then
			say "$output $containerd17_version: there"
			continue
		fi
		say "building $output $containerd17_version"
		(cd hack/containerd17 && CGO_ENABLED=0 go build -tags no_btrfs -o "$bin/$output" "$module/cmd/$program") ||
			die "could not build $program $containerd17_version"
	done
}

# Debian 12's runc 1.1 cannot idmap what a pod in a user namespace needs.
install_runc() {
	if has runc github.com/opencontainers/runc "$runc_version"; then
		say "runc $runc_version: there"
		return
	fi
	say "building runc $runc_version"
	CGO_ENABLED=1 GOBIN="$bin" go install -tags seccomp "github.com/opencontainers/runc@$runc_version" ||
		die "could not build runc"
}

# Debian 12's rootlesskit 1.1 would do, but is not on every host's package list.
install_rootlesskit() {
	local module=github.com/rootless-containers/rootlesskit/v2
	if has rootlesskit "$module" "$rootlesskit_version"; then
		say "rootlesskit $rootlesskit_version: there"
		return
	fi
	say "building rootlesskit $rootlesskit_version"
	CGO_ENABLED=0 GOBIN="$bin" go install "$module/cmd/rootlesskit@$rootlesskit_version" ||
		die "could not build rootlesskit"
}

install_tool() {
	local program=$1 package=$2 module=$3 version
	version=$(cd hack/tools && go list -m -f '{{.Version}}' "$module")
	if has "$program" "$module" "$version" && same_go "$program"; then
		say "$program $version: there"
		return
	fi
	say "building $program $version"
	(cd hack/tools && CGO_ENABLED=0 go build -o "$bin/$program" "$package") || die "could not build $program"
}

demo() {
	need runc runc
	install_wanted
	install_busybox
	install_containerd
}

test_all() {
	need gcc gcc
	need_path /usr/include/stdio.h libc6-dev # -race and runc use cgo
	need pkg-config pkg-config
	need_path /usr/include/seccomp.h libseccomp-dev
	need ip iproute2
	need iptables iptables
	need mkfs.xfs xfsprogs
	need mkfs.ext4 e2fsprogs
	need mkfs.btrfs btrfs-progs
	need newuidmap uidmap
	need fuse-overlayfs fuse-overlayfs
	need fusermount3 fuse3
	need mount.fuse3 fuse3
	need unshare util-linux
	need setpriv util-linux
	need umoci umoci # make and read images that the image store exchanges with others
	need skopeo skopeo
	[ -e /opt/cni/bin/bridge ] || need_path /usr/lib/cni/bridge containernetworking-plugins
	demo
	install_runc
	install_rootlesskit
	install_containerd17
}

lint() {
	install_tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint \
		github.com/golangci/golangci-lint/v2
	install_tool staticcheck honnef.co/go/tools/cmd/staticcheck honnef.co/go/tools
}

command -v go >/dev/null 2>&1 || die "Go is missing: install it from https://go.dev/dl (see go.mod for the version)"
mkdir -p "$bin"
case "${1:-}" in
demo) demo ;;
test) test_all ;;
lint) lint ;;
*) die "usage: hack/deps.sh demo|test|lint" ;;
esac
