package protocol

import (
	"fmt"
	"io/fs"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fill gives every field of a value, however deep, a value of its own, so that one which an adapter forgets or mixes up
// shows. It fails for kinds it doesn't know.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Interface().(type) {
	case time.Duration:
		v.SetInt(int64(*n) * int64(time.Millisecond)) // the wire has milliseconds
		return
	case fs.FileMode:
		v.SetUint(uint64(*n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d \xff", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8:
		v.SetUint(uint64(*n) % 256)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, n)
		fill(t, value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("fill knows no %s", v.Type())
	}
}

func filled[V any](t *testing.T) *V {
	v, n := new(V), 0
	fill(t, reflect.ValueOf(v).Elem(), &n)
	return v
}

func TestNoFieldIsForgotten(t *testing.T) {
	job := filled[Job](t)
	require.Equal(t, job, jobFromWire(jobToWire(job)))
	settings := filled[Settings](t)
	require.Equal(t, settings, settingsFromWire(settingsToWire(settings)))
}

func TestNothingStaysNothing(t *testing.T) {
	require.Equal(t, &Job{}, jobFromWire(jobToWire(&Job{})))
	require.Equal(t, &Job{}, jobFromWire(nil), "a request without a job")
	require.Equal(t, &Settings{StopGrace: DefaultStopGrace}, settingsFromWire(settingsToWire(&Settings{})))
	require.Equal(t, &Settings{StopGrace: DefaultStopGrace}, settingsFromWire(nil))
}

func TestStatusesOnTheWire(t *testing.T) {
	for phase := Waiting; phase <= Finished; phase++ {
		s := Status{Phase: phase, JobID: "id", Result: Failed}
		require.Equal(t, s, statusFromWire(statusToWire(s)))
		require.Contains(t, statusToWire(s).GetPhase().String(), "PHASE_")
		require.NotContains(t, phase.String(), "(")
	}
	require.Equal(t, "phase(5)", (Finished + 1).String())
	require.Equal(t, "phase(-1)", Phase(-1).String())
	for _, status := range []CheckStatus{CheckOK, CheckWarning, CheckFailed} {
		c := CheckResult{Name: "n", Status: status, Message: "m"}
		require.Equal(t, c, checkFromWire(checkToWire(c)))
	}
	unknown := checkToWire(CheckResult{})
	unknown.Status = 99
	require.Equal(t, CheckFailed, checkFromWire(unknown).Status)
}
