// SPDX-License-Identifier: Apache-2.0

// Package advice has what several parts tell their users to do.
package advice

import "strings"

// DefaultRoot is the root of a daemon that is told nothing else.
const DefaultRoot = "/var/lib/containerd-strata-grpc"

// Rebuild is the command that makes a new metadata.db for a root.
func Rebuild(root string) string {
	command := "containerd-strata-grpc fsck --rebuild"
	if root == DefaultRoot {
		return command
	}
	return command + " --root " + quote(root)
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
