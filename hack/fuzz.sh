#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every fuzzer of every package for a short time: hack/fuzz.sh [TIME]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
time=${1:-10s}
found=0
for package in $(go list ./...); do
	# Compiling a package only to list its fuzzers is slow; its sources say if there are any.
	grep -qs '^func Fuzz' "$(go list -f '{{.Dir}}' "$package")"/*_test.go || continue
	for fuzzer in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		found=$((found + 1))
		echo "--- fuzz: $package $fuzzer ($time)"
		# Coverage of code with goroutines differs from run to run: minimizing would go on for long.
		go test -run '^$' -fuzz "^$fuzzer\$" -fuzzminimizetime 10x -fuzztime "$time" -timeout 30m "$package"
	done
done
echo "--- fuzz: $found fuzzers ran"
