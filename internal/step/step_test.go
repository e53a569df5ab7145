// SPDX-License-Identifier: Apache-2.0

package step

import (
	"context"
	"testing"
)

func TestSteps(t *testing.T) {
	var r Recorder
	ctx := With(context.Background(), &r)
	current := func() string { what, _ := r.Current(); return what }
	outer := Enter(ctx, Publish)
	inner := Enter(context.WithoutCancel(ctx), Transaction)
	if got := current(); got != Transaction {
		t.Errorf("inside: %q", got)
	}
	inner()
	if got := current(); got != Publish {
		t.Errorf("after the inner one: %q", got)
	}
	outer()
	if got := current(); got != "" {
		t.Errorf("at the end: %q", got)
	}
	Enter(context.Background(), Walk)() // nobody watches
}
