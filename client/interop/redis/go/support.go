package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// What does not hold: a case ends with it, by way of a panic, so that cases read as what they expect.
type failure struct{ text string }

func fail(format string, args ...any) {
	_, file, line, _ := runtime.Caller(2)
	panic(failure{fmt.Sprintf(format, args...) + fmt.Sprintf(" (%s:%d)", filepath.Base(file), line)})
}

func equal[T any](got, expected T, what string) {
	if !reflect.DeepEqual(got, expected) {
		fail("%s: expected %+v, got %+v", what, expected, got)
	}
}

func holds(condition bool, what string, args ...any) {
	if !condition {
		fail(what, args...)
	}
}

// The reply, if there was no error.
func must[T any](reply T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return reply
}

func ignore[T any](_ T, err error) error { return err }

// The text of the error that was to come.
func errorOf(err error) string {
	if err == nil {
		fail("no error")
	}
	return err.Error()
}

// What a goroutine ended with.
type outcome[T any] struct {
	reply T
	err   error
}

func inBackground[T any](call func() (T, error)) func() (T, error) {
	done := make(chan outcome[T], 1)
	go func() {
		reply, err := call()
		done <- outcome[T]{reply, err}
	}()
	return func() (T, error) {
		select {
		case ended := <-done:
			return ended.reply, ended.err
		case <-time.After(10 * time.Second):
			return *new(T), fmt.Errorf("a blocked call did not end")
		}
	}
}

// Counts cases, and says how they went in the form that run.sh reads.
type report struct {
	client, version string
	setting         setting
	passed, failed  int
}

// Runs a case; without a name, what is to report cases of its own.
func (r *report) run(name string, work func()) {
	defer func() {
		if broken := recover(); broken != nil {
			r.failed++
			if name == "" {
				name = r.setting.part
			}
			if known, ok := broken.(failure); ok {
				broken = known.text
			}
			fmt.Printf("FAILED %s: %v\n", name, broken)
		} else if name != "" {
			r.passed++
			fmt.Printf("ok %s\n", name)
		}
	}()
	work()
}

func (r *report) end() {
	fmt.Printf("result|%s|%s|RESP%d|%s|%d|%d\n",
		r.client, r.version, r.setting.protocol, r.setting.part, r.passed, r.failed)
	if r.failed > 0 {
		os.Exit(1)
	}
}

// The folder of the words with run.sh, which kills the leader once `progress` is high enough, writes `killed`, starts
// it again, writes `restored`; both hold the time in ms.
type faults string

func (f faults) progress(count int) {
	must(0, os.WriteFile(filepath.Join(string(f), "progress"), []byte(strconv.Itoa(count)), 0o644))
}

// 0 as long as there is none.
func (f faults) at(name string) int64 {
	text, err := os.ReadFile(filepath.Join(string(f), name))
	if err != nil {
		return 0
	}
	at, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return at
}

type orderData struct {
	OrderID  string  `json:"orderId"`
	Customer string  `json:"customer"`
	Total    float64 `json:"total"`
	Status   string  `json:"status"`
}

func order(number int, status string) string {
	customer := []string{"Zoë", "Björn", "李雷", "O'Neil"}[number%4]
	text := must(json.Marshal(orderData{fmt.Sprintf("order-%d", number), customer, float64(number*10) + 0.5, status}))
	return string(text)
}

// The names from `first` below `end`, made by a format of one number.
func numbered(format string, first, end int) []string {
	names := []string{}
	for n := first; n < end; n++ {
		names = append(names, fmt.Sprintf(format, n))
	}
	return names
}
