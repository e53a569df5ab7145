#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a container on Strata with a private containerd in a temporary directory, and
# leaves nothing behind. Exits 0 only if the container printed what it should.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
repo=$PWD
bin="$repo/.cache/bin"
export PATH="$bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Another name ("overlayfs") runs the same demo on one of containerd's own snapshotters.
snapshotter=${DEMO_SNAPSHOTTER:-strata}
image=strata.test/demo:latest
ns="strata-demo-$$"
dir=
containerd_pid=
strata_pid=

step() { printf '\n==> %s\n' "$*"; }
fail() {
	printf '\n==> FAILED: %s\n' "$*" >&2
	exit 1
}

run_ctr() {
	CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 timeout 60 "$bin/ctr" --address "$dir/c.sock" --namespace "$ns" "$@" </dev/null
}

# alive PID: a zombie of ours is not alive.
alive() {
	[ -n "$1" ] && [ -r "/proc/$1/stat" ] && ! grep -qs '^[0-9]* (.*) Z' "/proc/$1/stat"
}

# stop PID: asks, then insists.
stop() {
	local pid=$1 i
	[ -n "$pid" ] || return 0
	kill "$pid" 2>/dev/null || true
	for i in $(seq 100); do
		alive "$pid" || break
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
}

# ours lists the processes (shims, after a failure) that were started for our directory.
ours() {
	local p
	for p in /proc/[0-9]*; do
		[ "${p#/proc/}" = "$$" ] && continue
		{ tr '\0' ' ' <"$p/cmdline"; } 2>/dev/null | grep -qF "$dir/" && echo "${p#/proc/}"
	done
	return 0
}

mounts_below() {
	awk -v d="$dir/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

remove_container() {
	local i
	run_ctr tasks kill --all --signal KILL demo >/dev/null 2>&1 || true
	for i in $(seq 50); do
		run_ctr tasks delete --force demo >/dev/null 2>&1 && break
		run_ctr tasks list --quiet 2>/dev/null | grep -qx demo || break
		sleep 0.1
	done
	run_ctr containers delete demo >/dev/null 2>&1 || true
}

cleanup() {
	local status=$? p m
	trap - EXIT
	trap '' INT TERM
	set +e
	[ -n "$dir" ] || exit "$status"
	if [ "$status" -ne 0 ]; then
		for p in containerd strata; do
			[ -s "$dir/$p.log" ] && { printf -- '--- the end of %s.log\n' "$p"; grep -v 'loading plugin' "$dir/$p.log" | tail -n 30; } >&2
		done
	fi
	alive "$containerd_pid" && [ "$status" -ne 0 ] && remove_container
	stop "$containerd_pid"
	for p in $(ours); do
		[ "$p" = "$strata_pid" ] || kill -KILL "$p" 2>/dev/null
	done
	stop "$strata_pid"
	for m in $(mounts_below); do
		umount "$m" 2>/dev/null || umount -l "$m"
	done
	rmdir /sys/fs/cgroup/"$ns" /sys/fs/cgroup/*/"$ns" 2>/dev/null
	rm -rf --one-file-system "$dir" || status=1
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# An overlay cannot have its writable directory on another overlay (in a container).
pick_directory() {
	local base
	for base in "${TMPDIR:-/tmp}" /var/tmp /dev/shm; do
		[ -w "$base" ] && [ "$(stat -f -c %T "$base")" != overlayfs ] || continue
		dir=$(mktemp -d "$base/strata-demo.XXXXXX")
		return
	done
	fail "no directory outside an overlay file system; set TMPDIR to one"
}

write_config() {
	cat >"$dir/containerd.toml" <<-TOML
		version = 3
		root = "$dir/containerd"
		state = "$dir/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
		  "io.containerd.nri.v1.nri", "io.containerd.podsandbox.controller.v1.podsandbox"]
		[grpc]
		  address = "$dir/c.sock"
		[plugins.'io.containerd.internal.v1.opt']
		  path = "$dir/opt"
	TOML
	[ "$snapshotter" = strata ] && cat >>"$dir/containerd.toml" <<-TOML
		[proxy_plugins.strata]
		  type = "snapshot"
		  address = "$dir/strata.sock"
		  capabilities = ["rebase", "remap-ids"]
		  [proxy_plugins.strata.exports]
		    root = "$dir/strata"
		[proxy_plugins.strata-diff]
		  type = "diff"
		  address = "$dir/strata.sock"
		[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
		  platform = "linux/$(go env GOARCH)"
		  snapshotter = "strata"
		  differ = "strata-diff"
		[plugins.'io.containerd.service.v1.diff-service']
		  default = ["strata-diff", "walking"]
	TOML
	return 0
}

# wait_for PID NAME COMMAND...: until the command succeeds, as long as the process lives.
wait_for() {
	local pid=$1 name=$2 i
	shift 2
	for i in $(seq 300); do
		alive "$pid" || fail "$name ended at its start"
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	fail "$name did not answer within 30 seconds"
}

start_strata() {
	"$repo/bin/containerd-strata-grpc" --config "$dir/strata.toml" --root "$dir/strata" \
		--address "$dir/strata.sock" --containerd-address "$dir/c.sock" --log-level info </dev/null >"$dir/strata.log" 2>&1 &
	strata_pid=$!
	wait_for "$strata_pid" strata test -S "$dir/strata.sock"
}

start_containerd() {
	"$bin/containerd" --config "$dir/containerd.toml" </dev/null >"$dir/containerd.log" 2>&1 &
	containerd_pid=$!
	wait_for "$containerd_pid" containerd timeout 5 "$bin/ctr" --address "$dir/c.sock" version
}

# The container's program: reads files of every layer, looks for what the layers
# deleted, and writes.
readonly program='
absent() { if [ -e "$1" ]; then echo "$1 is still there"; else echo "$1 is gone"; fi; }
cat /etc/greeting /data/keep /data/added /data/replaced/after
stat -c "%n %u:%g %a" /srv/owned
absent /data/gone; absent /data/old; absent /data/replaced/before
echo "written in the container" >/data/new && cat /data/new
rm /etc/greeting && absent /etc/greeting
echo end
exec sleep 600
'
readonly expected='hello from a layer
kept
added
after
/srv/owned 1000:1000 640
/data/gone is gone
/data/old is gone
/data/replaced/before is gone
written in the container
/etc/greeting is gone
end'

run_container() {
	: >"$dir/output"
	run_ctr run --detach --snapshotter "$snapshotter" --log-uri "file://$dir/output" \
		--runc-binary "$(command -v runc)" --runc-root "$dir/runc" \
		"$image" demo /bin/sh -c "$program" || fail "the container did not start"
	local i
	for i in $(seq 300); do
		grep -qx end "$dir/output" && break
		sleep 0.1
	done
	sed 's/^/    /' "$dir/output"
	[ "$(cat "$dir/output")" = "$expected" ] || fail "the container printed something else than expected:
$expected"
}

show_stack() {
	step "the snapshots, and what each was made from"
	run_ctr snapshots --snapshotter "$snapshotter" tree | sed 's/^/    /; s/sha256:\(............\)[0-9a-f]*/\1/'
	step "the running container's mount"
	awk -v d="$dir/" '$3 == "overlay" && index($2, d) == 1 { print "on " $2; n = split($4, o, ","); for (i = 1; i <= n; i++) print "  " o[i] }' \
		/proc/mounts | sed "s#$dir#…#g; s/^/    /"
	[ "$snapshotter" = strata ] || return 0
	step "the layer directories below the root ($dir/strata)"
	(cd "$dir/strata" && du -sh layers/*) | sed 's/^/    /'
}

[ "$(id -u)" -eq 0 ] || { echo "the demo mounts file systems: run it as root" >&2; exit 1; }
step "installing what is missing"
hack/deps.sh demo
if [ "$snapshotter" = strata ]; then
	step "building Strata"
	make --no-print-directory build
fi
pick_directory
step "making an image: 5 layers, with deleted files, a deleted and an opaque directory, and an empty layer"
go run ./hack/mkimage -output "$dir/image.tar" -name "$image"
step "starting containerd and $snapshotter in $dir"
write_config
: >"$dir/strata.toml"
[ "$snapshotter" != strata ] || start_strata
start_containerd
step "importing the image"
run_ctr images import --snapshotter "$snapshotter" "$dir/image.tar" | sed 's/^/    /'
step "running a container; it prints"
run_container
show_stack
step "removing everything"
remove_container
run_ctr images rm --sync "$image" >/dev/null
stop "$containerd_pid"
[ -z "$(mounts_below)" ] || fail "mounts were left: $(mounts_below)"
step "the demo worked"
