// Producers and consumers of two groups while the leader dies. What is done about it are go-redis's own settings, how
// often to send a command again and how long to wait in between; and what it does not take for "not now", the program
// repeats.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	stream = "failover:stream"
	// Until a program must have come through the leader's end.
	failoverTime = 60 * time.Second
	// How many numbers a producer goes on for after the leader is back.
	appendsAfter = 100
)

var groups = []string{"billing", "shipping"}

func patient(s setting, turn int) *redis.Client {
	options := s.options(turn)
	options.MaxRetries = 60
	options.MinRetryBackoff = 20 * time.Millisecond
	options.MaxRetryBackoff = 500 * time.Millisecond
	return redis.NewClient(options)
}

// Sends again what go-redis has given back although it may be repeated, even if some of that doubles an entry.
func again[T any](call func() (T, error)) T {
	for {
		reply, err := call()
		if err == nil || errors.Is(err, redis.Nil) {
			return reply
		}
		if !strings.HasPrefix(err.Error(), "UNKNOWN ") && !strings.HasPrefix(err.Error(), "UNBLOCKED ") {
			fail("%v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Which numbers were appended, under which ids and when, and which ids each group has handled.
type account struct {
	sync.Mutex
	setting      setting
	deadline     time.Time
	acknowledged map[int]string
	spans        map[int][2]int64
	handled      map[string]map[string]bool
	producing    bool
	// What went wrong first; everybody stops then.
	broken any
}

func failover(report *report) {
	ctx := context.Background()
	a := &account{setting: report.setting, deadline: time.Now().Add(failoverTime), producing: true}
	a.acknowledged, a.spans, a.handled = map[int]string{}, map[int][2]int64{}, map[string]map[string]bool{}
	setup := patient(a.setting, len(a.setting.addresses)-1)
	must(setup.FlushAll(ctx).Result())
	var producers, consumers sync.WaitGroup
	for _, group := range groups {
		a.handled[group] = map[string]bool{}
		must(setup.XGroupCreateMkStream(ctx, stream, group, "0").Result())
	}
	for _, group := range groups {
		for _, turn := range []int{0, 2} {
			a.start(&consumers, func() { a.consume(ctx, group, turn) })
		}
	}
	for _, turn := range []int{0, 1} {
		a.start(&producers, func() { a.produce(ctx, turn) })
	}
	producers.Wait()
	a.locked(func() { a.producing = false })
	consumers.Wait()
	if a.broken != nil {
		panic(a.broken)
	}
	a.verify(report, must(setup.XRange(ctx, stream, "-", "+").Result()), must(setup.XInfoGroups(ctx, stream).Result()))
}

func (a *account) start(with *sync.WaitGroup, work func()) {
	with.Add(1)
	go func() {
		defer with.Done()
		defer func() {
			if broken := recover(); broken != nil {
				a.locked(func() {
					if a.broken == nil {
						a.broken = broken
					}
				})
			}
		}()
		work()
	}()
}

func (a *account) locked(work func()) {
	a.Lock()
	defer a.Unlock()
	work()
}

// Whether to go on; ends a case that takes too long.
func (a *account) goesOn(who string, turn int, until time.Time) bool {
	holds(time.Now().Before(until), "%s %d came through", who, turn)
	a.Lock()
	defer a.Unlock()
	return a.broken == nil
}

func (a *account) produce(ctx context.Context, turn int) {
	client := patient(a.setting, turn)
	defer client.Close()
	last := -1
	for number := turn; (last < 0 || number < last) && a.goesOn("producer", turn, a.deadline); number += 2 {
		began := time.Now().UnixMilli()
		id := again(func() (string, error) {
			return client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"n", number}}).Result()
		})
		a.locked(func() {
			a.acknowledged[number] = id
			a.spans[number] = [2]int64{began, time.Now().UnixMilli()}
			if len(a.acknowledged)%20 == 0 {
				a.setting.faults.progress(len(a.acknowledged))
			}
		})
		if last < 0 && a.setting.faults.at("restored") > 0 {
			last = number + appendsAfter
		}
		time.Sleep(3 * time.Millisecond)
	}
}

func (a *account) consume(ctx context.Context, group string, turn int) {
	client := patient(a.setting, turn)
	defer client.Close()
	consumer := fmt.Sprintf("consumer-%d", turn)
	// Some are at the leader's door, and some wait through its end at another.
	block := map[int]time.Duration{0: 300 * time.Millisecond, 2: 2 * time.Second}[turn]
	handle := func(messages []redis.XMessage) {
		ids := []string{}
		for _, message := range messages {
			ids = append(ids, message.ID)
		}
		if len(ids) == 0 {
			return
		}
		a.locked(func() {
			for _, id := range ids {
				a.handled[group][id] = true
			}
		})
		again(func() (int64, error) { return client.XAck(ctx, stream, group, ids...).Result() })
	}
	read := &redis.XReadGroupArgs{
		Group: group, Consumer: consumer, Streams: []string{stream, ">"}, Count: 10, Block: block,
	}
	claim := &redis.XAutoClaimArgs{
		Stream: stream, Group: group, Consumer: consumer, MinIdle: time.Second, Start: "0-0", Count: 100,
	}
	for a.goesOn("consumer", turn, a.deadline.Add(5*time.Second)) {
		found := again(func() ([]redis.XStream, error) { return client.XReadGroup(ctx, read).Result() })
		for _, of := range found {
			handle(of.Messages)
		}
		if len(found) > 0 {
			continue
		}
		// Entries whose delivery was lost on its way to a consumer, this one or another.
		handle(again(func() ([]redis.XMessage, error) {
			messages, _, err := client.XAutoClaim(ctx, claim).Result()
			return messages, err
		}))
		left := again(func() (*redis.XPending, error) { return client.XPending(ctx, stream, group).Result() })
		producing := true
		a.locked(func() { producing = a.producing })
		if !producing && left.Count == 0 {
			return
		}
	}
}

func (a *account) verify(report *report, entries []redis.XMessage, left []redis.XInfoGroup) {
	killed, restored := a.setting.faults.at("killed"), a.setting.faults.at("restored")
	numberAt, times := map[string]int{}, map[int]int{}
	for _, entry := range entries {
		number := must(strconv.Atoi(entry.Values["n"].(string)))
		numberAt[entry.ID] = number
		times[number]++
	}

	report.run("failover-happened", func() {
		holds(killed > 0 && restored > 0, "the leader was killed and started again")
		first, last := int64(1)<<62, int64(0)
		for _, span := range a.spans {
			first, last = min(first, span[0]), max(last, span[0])
		}
		holds(first < killed && restored < last, "appends began before and after it")
	})
	report.run("failover-none-lost", func() {
		lost := []int{}
		for number, id := range a.acknowledged {
			if at, there := numberAt[id]; !there || at != number {
				lost = append(lost, number)
			}
		}
		equal(lost, []int{}, "acknowledged numbers that are not at their id")
		for turn := range 2 {
			for number := turn + 2; a.acknowledged[number] != ""; number += 2 {
				before, after := idOf(a.acknowledged[number-2]), idOf(a.acknowledged[number])
				holds(slices.Compare(before, after) < 0, "what a producer appends later has a higher id")
			}
		}
	})
	report.run("failover-doubled", func() {
		doubled, longest := [2]int{}, [2]int64{}
		for number, count := range times {
			span, known := a.spans[number]
			holds(known, "nobody has acknowledged %d", number)
			if count == 1 {
				continue
			}
			doubled[number%2]++
			holds(span[0] <= restored+5000 && killed-100 <= span[1], "%d was doubled far from the fault", number)
		}
		for number, span := range a.spans {
			longest[number%2] = max(longest[number%2], span[1]-span[0])
		}
		fmt.Printf("     %d acknowledged, %d in the stream, %d doubled\n",
			len(a.acknowledged), len(entries), doubled[0]+doubled[1])
		// Even numbers went by way of the door that ended, odd ones by way of another, if there is one.
		for turn, door := range []string{"the leader's door", "another door"} {
			fmt.Printf("       by way of %s: %d doubled, the longest append took %d ms\n",
				door, doubled[turn], longest[turn])
		}
	})
	report.run("failover-groups", func() {
		equal(len(left), len(groups), "groups")
		for _, group := range left {
			missing := 0
			for _, entry := range entries {
				if !a.handled[group.Name][entry.ID] {
					missing++
				}
			}
			equal(missing, 0, "ids that group "+group.Name+" has not handled")
			equal([]int64{group.Pending, group.Lag}, []int64{0, 0}, "what is left for group "+group.Name)
		}
	})
}

func idOf(text string) []uint64 {
	ms, seq, _ := strings.Cut(text, "-")
	return []uint64{must(strconv.ParseUint(ms, 10, 64)), must(strconv.ParseUint(seq, 10, 64))}
}
