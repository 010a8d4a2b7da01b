package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// settleTime is how long an idle supervisor is left alone before it is looked at, idleTime how long it is watched.
	settleTime = 5 * time.Second
	idleTime   = 30 * time.Second
	manySlots  = 11
)

// idle measures a supervisor that waits for jobs.
func (b *bench) idle(ctx context.Context) (_ []figure, err error) {
	one, err := b.start(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer closing(one, &err)
	many, err := b.start(ctx, manySlots)
	if err != nil {
		return nil, err
	}
	defer closing(many, &err)
	if err := pass(ctx, settleTime); err != nil {
		return nil, err
	}
	ticks, err := cpuTicks(one.pid())
	if err != nil {
		return nil, err
	}
	used, err := cpuTime(one.pid())
	if err != nil {
		return nil, err
	}
	if err := pass(ctx, idleTime); err != nil {
		return nil, err
	}
	ticksAfter, err := cpuTicks(one.pid())
	if err != nil {
		return nil, err
	}
	usedAfter, err := cpuTime(one.pid())
	if err != nil {
		return nil, err
	}
	single, err := memoryOf(one.pid())
	if err != nil {
		return nil, err
	}
	several, err := memoryOf(many.pid())
	if err != nil {
		return nil, err
	}
	share := float64(usedAfter-used) / float64(idleTime) * 100
	slot := (several.resident - single.resident) / (manySlots - 1)
	return []figure{
		{
			what: "idle supervisor, one slot: RSS", value: fmt.Sprintf("%s (own pages %s; at its peak %s)",
				megabytes(single.resident), megabytes(single.anon), megabytes(single.peak)),
			target: "< 25 MB", met: single.resident < 25*megabyte, existing: "25 MB",
		},
		{
			what:   fmt.Sprintf("idle supervisor, one slot: processor time in %s", idleTime),
			value:  fmt.Sprintf("%.1f ms, %.3f %% of a core; %d ticks of 10 ms", (usedAfter-used).Seconds()*1000, share, ticksAfter-ticks),
			target: "not measurable", met: share < 0.1, existing: "–",
		},
		{
			what: "each further slot: RSS", value: fmt.Sprintf("%.2f MB (own pages %.2f MB)", float64(slot)/megabyte,
				float64(several.anon-single.anon)/(manySlots-1)/megabyte),
			target: "< 1 MB", met: slot < megabyte, existing: "a process of 25 MB",
		},
	}, nil
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
