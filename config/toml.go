// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

const header = "# Configuration of containerd-strata-grpc. A key that is left out has the value\n" +
	"# that \"containerd-strata-grpc config default\" shows.\n\n"

// TOML writes the configuration as a file with a comment for every key.
// Parse gives back the same configuration, if it is valid. The error is
// Internal: no value of the fields' types fails to be written.
func (c Config) TOML() ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteString(header)
	if err := toml.NewEncoder(&buf).SetIndentSymbol("").Encode(c); err != nil {
		return nil, fmt.Errorf("write configuration as TOML: %w: %w", err, errdefs.ErrInternal)
	}
	return buf.Bytes(), nil
}
