// SPDX-License-Identifier: Apache-2.0

// Package config is the daemon's configuration: one TOML file, its defaults
// and the rules a value has to keep.
//
// Parsing is strict. A key this build does not know is an error that names
// the key and its line, because a misspelt "sync_remove" that is silently
// ignored is found only when it is missed.
package config
