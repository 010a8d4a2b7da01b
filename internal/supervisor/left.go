package supervisor

import (
	"encoding/json"
	"os"

	"github.com/signalman-ci/signalman/internal/jobdir"
)

// noteLeft tells the supervisor that takes over which slots have left for good: their idle time was over, say, or a job was all
// they were for.
func (s *Supervisor) noteLeft(slots []int) {
	if len(slots) == 0 {
		return
	}
	raw, err := json.Marshal(slots)
	if err == nil {
		err = jobdir.WriteFile(s.dir.leftFile(), raw)
	}
	if err != nil {
		s.Logger.Error("cannot note which slots have left; they come back", "error", err)
	}
}

// takeLeft reads what an earlier supervisor has noted, once: a start that isn't a take-over has all its slots.
func (s *Supervisor) takeLeft() map[int]bool {
	raw, err := os.ReadFile(s.dir.leftFile())
	if err != nil {
		return nil
	}
	_ = os.Remove(s.dir.leftFile()) // else they are missed once more
	var slots []int
	if err := json.Unmarshal(raw, &slots); err != nil {
		s.Logger.Error("cannot read which slots have left; they come back", "error", err)
	}
	left := map[int]bool{}
	for _, slot := range slots {
		left[slot] = true
	}
	return left
}
