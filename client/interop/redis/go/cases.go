// Every case of cases.txt, in go-redis's words.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Not to block: go-redis takes 0 for BLOCK 0.
const noBlock = -1

var ctx = context.Background()

type cases struct {
	setting setting
	r       *redis.Client
}

func plain(report *report) {
	c := cases{report.setting, redis.NewClient(report.setting.options(0))}
	report.run("", func() { must(c.r.FlushAll(ctx).Result()) })
	for _, one := range []struct {
		name string
		work func()
	}{
		{"order-tracker", c.orderTracker},
		{"producer-consumer", c.producerConsumer},
		{"group-acks", c.groupAcks},
		{"pending-recovery", c.pendingRecovery},
		{"trim-length", c.trimLength},
		{"trim-time", c.trimTime},
		{"history-replay", c.historyReplay},
		{"xinfo", c.xinfo},
		{"blocking", c.blocking},
		{"pipeline", c.pipeline},
		{"transaction", c.transaction},
		{"watch", c.watch},
		{"errors", c.errors},
		{"keys", c.keys},
		{"ids-and-bytes", c.idsAndBytes},
		{"any-door", c.anyDoor},
	} {
		report.run(one.name, one.work)
	}
}

func (c cases) another(turn int) *redis.Client { return redis.NewClient(c.setting.options(turn)) }

func add(to redis.Cmdable, key string, fields ...any) string {
	return must(to.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: fields}).Result())
}

func addAt(to redis.Cmdable, key, id string, fields ...any) string {
	return must(to.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: id, Values: fields}).Result())
}

func (c cases) append(key string, count int) []string {
	ids := []string{}
	for n := range count {
		ids = append(ids, add(c.r, key, "n", n))
	}
	return ids
}

func (c cases) all(key string) []redis.XMessage { return must(c.r.XRange(ctx, key, "-", "+").Result()) }

func (c cases) idsOf(key, start, end string) []string {
	return ids(must(c.r.XRange(ctx, key, start, end).Result()))
}

func ids(messages []redis.XMessage) []string {
	found := []string{}
	for _, message := range messages {
		found = append(found, message.ID)
	}
	return found
}

// Entries with these ids and a field n; from is the n of the first one.
func entries(from int, ids ...string) []redis.XMessage {
	made := []redis.XMessage{}
	for at, id := range ids {
		made = append(made, redis.XMessage{ID: id, Values: map[string]any{"n": strconv.Itoa(from + at)}})
	}
	return made
}

// What XREAD and XREADGROUP replied, of one stream.
func of(key string, reply []redis.XStream, err error) []redis.XMessage {
	streams := must(reply, err)
	equal(len(streams), 1, "streams of the reply")
	equal(streams[0].Stream, key, "the stream's name")
	return streams[0].Messages
}

func read(to *redis.Client, group, consumer, key, after string, count int64) ([]redis.XStream, error) {
	return readBlocked(to, group, consumer, key, after, count, noBlock)
}

func readBlocked(
	to *redis.Client, group, consumer, key, after string, count int64, block time.Duration,
) ([]redis.XStream, error) {
	streams := []string{key, after}
	args := redis.XReadGroupArgs{Group: group, Consumer: consumer, Streams: streams, Count: count, Block: block}
	return to.XReadGroup(ctx, &args).Result()
}

// Waits until so many clients of a door are blocked.
func waitBlocked(door *redis.Client, count int) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		// Without a pause: who counts as blocked must have its place in the queue.
		if strings.Contains(must(door.Info(ctx, "clients").Result()), fmt.Sprintf("blocked_clients:%d\r\n", count)) {
			return
		}
		holds(time.Now().Before(deadline), "%d clients are blocked", count)
	}
}

func (c cases) orderTracker() {
	add(c.r, "left-over", "a", "b")
	equal(must(c.r.FlushAll(ctx).Result()), "OK", "FLUSHALL")
	equal(must(c.r.DBSize(ctx).Result()), 0, "keys after FLUSHALL")
	expected := []redis.XMessage{}
	for n := range 5 {
		data := order(n, "created")
		id := add(c.r, "orders:stream", "data", data)
		expected = append(expected, redis.XMessage{ID: id, Values: map[string]any{"data": data}})
	}
	equal(must(c.r.XLen(ctx, "orders:stream").Result()), 5, "XLEN")
	equal(c.all("orders:stream"), expected, "the history")
	newest := must(c.r.XRevRangeN(ctx, "orders:stream", "+", "-", 2).Result())
	equal(newest, []redis.XMessage{expected[4], expected[3]}, "newest first")
	add(c.r, "orders:stream", "data", order(1, "paid"))
	add(c.r, "orders:stream", "data", order(3, "paid"))
	add(c.r, "orders:stream", "data", order(1, "shipped"))
	latest := map[string]string{}
	for _, message := range c.all("orders:stream") {
		var data orderData
		must(0, json.Unmarshal([]byte(message.Values["data"].(string)), &data))
		latest[data.OrderID] = data.Status
	}
	statuses := map[string]string{
		"order-0": "created", "order-1": "shipped", "order-2": "created", "order-3": "paid", "order-4": "created",
	}
	equal(latest, statuses, "the latest status of each order")
}

func (c cases) producerConsumer() {
	produced := inBackground(func() ([]string, error) {
		producer, ids := c.another(1), []string{}
		defer producer.Close()
		for n := range 50 {
			id, err := producer.XAdd(ctx, &redis.XAddArgs{Stream: "pc", Values: []any{"n", n}}).Result()
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
		return ids, nil
	})
	seen, last := []redis.XMessage{}, "0-0"
	for len(seen) < 50 {
		args := redis.XReadArgs{Streams: []string{"pc", last}, Count: 10, Block: 2 * time.Second}
		reply, err := c.r.XRead(ctx, &args).Result()
		seen = append(seen, of("pc", reply, err)...)
		last = seen[len(seen)-1].ID
	}
	equal(seen, entries(0, must(produced())...), "what the consumer saw")
}

func (c cases) groupAcks() {
	r := c.r
	equal(must(r.XGroupCreateMkStream(ctx, "ga", "workers", "0").Result()), "OK", "XGROUP CREATE MKSTREAM")
	busy := errorOf(r.XGroupCreate(ctx, "ga", "workers", "0").Err())
	equal(busy, "BUSYGROUP Consumer Group name already exists", "a second XGROUP CREATE")
	made := c.append("ga", 20)
	got := map[string][]string{}
	for _, consumer := range []string{"alice", "bob", "bob", "alice"} {
		reply, err := read(r, "workers", consumer, "ga", ">", 5)
		got[consumer] = append(got[consumer], ids(of("ga", reply, err))...)
	}
	equal(got["alice"], slices.Concat(made[:5], made[15:]), "what alice got")
	equal(got["bob"], made[5:15], "what bob got")
	holds(ignore(read(r, "workers", "alice", "ga", ">", 5)) == redis.Nil, "nothing is left")
	pending := func() redis.XPending { return *must(r.XPending(ctx, "ga", "workers").Result()) }
	consumers := map[string]int64{"alice": 10, "bob": 10}
	equal(pending(), redis.XPending{Count: 20, Lower: made[0], Higher: made[19], Consumers: consumers}, "XPENDING")
	equal(must(r.XAck(ctx, "ga", "workers", got["alice"]...).Result()), 10, "XACK")
	equal(must(r.XAck(ctx, "ga", "workers", got["alice"][0], got["bob"][0]).Result()), 1, "XACK, one of them again")
	equal(pending().Consumers, map[string]int64{"bob": 9}, "XPENDING after XACK")
	equal(must(r.XAck(ctx, "ga", "workers", got["bob"]...).Result()), 9, "XACK of the rest")
	equal(pending(), redis.XPending{Consumers: map[string]int64{}}, "XPENDING at the end")
}

func (c cases) pendingRecovery() {
	r := c.r
	made := c.append("pr", 6)
	must(r.XGroupCreate(ctx, "pr", "g", "0").Result())
	must(read(r, "g", "gone", "pr", ">", 0))
	rows := func(more redis.XPendingExtArgs) []redis.XPendingExt {
		more.Stream, more.Group, more.Start, more.End, more.Count = "pr", "g", "-", "+", 10
		return must(r.XPendingExt(ctx, &more).Result())
	}
	for at, row := range rows(redis.XPendingExtArgs{}) {
		holds(0 <= row.Idle && row.Idle < time.Minute, "idle time %v", row.Idle)
		expected := redis.XPendingExt{ID: made[at], Consumer: "gone", Idle: row.Idle, RetryCount: 1}
		equal(row, expected, "a row of XPENDING")
	}
	equal(len(rows(redis.XPendingExtArgs{})), 6, "rows of XPENDING")
	equal(len(rows(redis.XPendingExtArgs{Consumer: "nobody"})), 0, "XPENDING of nobody")
	equal(len(rows(redis.XPendingExtArgs{Idle: time.Minute})), 0, "XPENDING IDLE")
	claim := redis.XClaimArgs{Stream: "pr", Group: "g", Consumer: "heir", Messages: made[:1]}
	equal(must(r.XClaim(ctx, &claim).Result()), entries(0, made[0]), "XCLAIM")
	claim.MinIdle = time.Minute
	equal(len(must(r.XClaim(ctx, &claim).Result())), 0, "XCLAIM of an entry too young")
	row := rows(redis.XPendingExtArgs{})[0]
	equal(row, redis.XPendingExt{ID: made[0], Consumer: "heir", Idle: row.Idle, RetryCount: 2}, "the claimed row")
	equal(must(r.XDel(ctx, "pr", made[3]).Result()), 1, "XDEL")
	type claimed struct {
		messages []redis.XMessage
		next     string
		deleted  []string
	}
	auto := redis.XAutoClaimArgs{Stream: "pr", Group: "g", Consumer: "heir", Start: "0-0", Count: 2}
	autoClaim := func() claimed {
		messages, next, deleted, err := r.XAutoClaimWithDeleted(ctx, &auto).Result()
		return claimed{messages, next, must(deleted, err)}
	}
	equal(autoClaim(), claimed{entries(0, made[:2]...), made[2], []string{}}, "XAUTOCLAIM, first page")
	auto.Start, auto.Count = made[2], 10
	left := append(entries(2, made[2]), entries(4, made[4:]...)...)
	equal(autoClaim(), claimed{left, "0-0", made[3:4]}, "XAUTOCLAIM, the rest")
	auto.Start, auto.MinIdle = "0-0", time.Minute
	equal(autoClaim(), claimed{[]redis.XMessage{}, "0-0", []string{}}, "XAUTOCLAIM of entries too young")
	auto = redis.XAutoClaimArgs{Stream: "pr", Group: "g", Consumer: "third", Start: "0-0", Count: 1}
	just, next, err := r.XAutoClaimJustID(ctx, &auto).Result()
	equal(append(must(just, err), next), made[:2], "XAUTOCLAIM JUSTID")
	times := map[string]int64{}
	for _, row := range rows(redis.XPendingExtArgs{}) {
		times[row.ID] = row.RetryCount
	}
	expected := map[string]int64{made[0]: 3, made[1]: 2, made[2]: 2, made[4]: 2, made[5]: 2}
	equal(times, expected, "times delivered")
	equal(must(r.XGroupDelConsumer(ctx, "pr", "g", "heir").Result()), 4, "XGROUP DELCONSUMER")
	equal(must(r.XGroupDelConsumer(ctx, "pr", "g", "gone").Result()), 0, "XGROUP DELCONSUMER without pending entries")
	equal(must(r.XPending(ctx, "pr", "g").Result()).Count, 1, "what is pending at the end")
}

func (c cases) trimLength() {
	r := c.r
	made := []string{}
	for n := range 15 {
		args := redis.XAddArgs{Stream: "tl", MaxLen: 10, Values: []any{"n", n}}
		made = append(made, must(r.XAdd(ctx, &args).Result()))
	}
	equal(c.idsOf("tl", "-", "+"), made[5:], "the newest ten")
	equal(must(r.XTrimMaxLen(ctx, "tl", 4).Result()), 6, "XTRIM MAXLEN")
	equal(c.idsOf("tl", "-", "+"), made[11:], "the newest four")
	equal(must(r.XTrimMaxLen(ctx, "tl", 4).Result()), 0, "XTRIM MAXLEN again")
	must(r.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for n := range 500 {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: "tl", MaxLen: 1000, Approx: true, Values: []any{"n", n}})
		}
		return nil
	}))
	equal(must(r.XLen(ctx, "tl").Result()), 504, "XADD MAXLEN ~ 1000 leaves what is below it")
	removed := must(r.XTrimMaxLenApprox(ctx, "tl", 100, 0).Result())
	left := must(r.XLen(ctx, "tl").Result())
	holds(100 <= left && removed+left == 504 && 0 < removed, "XTRIM MAXLEN ~ 100 removed %d, left %d", removed, left)
	equal(must(r.XTrimMaxLen(ctx, "tl", 0).Result()), left, "XTRIM MAXLEN 0")
	equal(must(r.XLen(ctx, "tl").Result()), 0, "XLEN of an empty stream")
	equal(must(r.Exists(ctx, "tl").Result()), 1, "an empty stream stays")
}

func (c cases) trimTime() {
	r := c.r
	for ms := 1000; ms < 2000; ms += 100 {
		addAt(r, "tt", fmt.Sprintf("%d-1", ms), "n", ms)
	}
	equal(must(r.XTrimMinID(ctx, "tt", "1500").Result()), 5, "XTRIM MINID")
	equal(must(r.XRangeN(ctx, "tt", "-", "+", 1).Result()), entries(1500, "1500-1"), "the first that is left")
	equal(must(r.XTrimMinID(ctx, "tt", "1500-1").Result()), 0, "XTRIM MINID at the first")
	must(r.XAdd(ctx, &redis.XAddArgs{Stream: "tt", ID: "2000-0", MinID: "1800-2", Values: []any{"n", 2000}}).Result())
	equal(c.idsOf("tt", "-", "+"), []string{"1900-1", "2000-0"}, "XADD MINID")
	now := int64(idOf(add(r, "tt-now", "a", "b"))[0])
	hour := time.Hour.Milliseconds()
	equal(must(r.XTrimMinID(ctx, "tt-now", strconv.FormatInt(now-hour, 10)).Result()), 0, "older than an hour")
	equal(must(r.XTrimMinID(ctx, "tt-now", strconv.FormatInt(now+hour, 10)).Result()), 1, "older than in an hour")
}

func (c cases) historyReplay() {
	r := c.r
	for n := range 25 {
		addAt(r, "hr", fmt.Sprintf("%d-%d", 1000+n/5, n%5+1), "n", n)
	}
	pages, seen := []int{}, []redis.XMessage{}
	for start := "-"; ; start = "(" + seen[len(seen)-1].ID {
		page := must(r.XRangeN(ctx, "hr", start, "+", 7).Result())
		if len(page) == 0 {
			break
		}
		pages, seen = append(pages, len(page)), append(seen, page...)
	}
	equal(pages, []int{7, 7, 7, 4}, "the lengths of pages")
	equal(seen, c.all("hr"), "the pages")
	equal(seen[24:], entries(24, "1004-5"), "the last entry")
	equal(c.idsOf("hr", "1002", "1002"), numbered("1002-%d", 1, 6), "one ms")
	equal(c.idsOf("hr", "1003-2", "(1003-4"), []string{"1003-2", "1003-3"}, "a half-open range")
	back := must(r.XRevRangeN(ctx, "hr", "1001", "-", 2).Result())
	equal(back, append(entries(9, "1001-5"), entries(8, "1001-4")...), "XREVRANGE")
	equal(len(c.idsOf("hr", "1004-4", "1004-3")), 0, "an empty range")
	equal(len(c.all("no-such-stream")), 0, "XRANGE of a missing stream")
	must(r.XGroupCreate(ctx, "hr", "replay", "1004-2").Result())
	own := func(after string) []redis.XMessage {
		reply, err := read(r, "replay", "c", "hr", after, 0)
		return of("hr", reply, err)
	}
	expected := entries(22, "1004-3", "1004-4", "1004-5")
	equal(own(">"), expected, "after the group's position")
	equal(own("0"), expected, "the consumer's own history")
	equal(must(r.XAck(ctx, "hr", "replay", "1004-3").Result()), 1, "XACK")
	equal(own("1004-4"), entries(24, "1004-5"), "its history after an id")
	must(r.XAck(ctx, "hr", "replay", "1004-4", "1004-5").Result())
	equal(len(own("0")), 0, "an empty history")
	equal(must(r.XGroupSetID(ctx, "hr", "replay", "0").Result()), "OK", "XGROUP SETID")
	args := redis.XReadGroupArgs{
		Group: "replay", Consumer: "c", Streams: []string{"hr", ">"}, Block: noBlock, NoAck: true,
	}
	reply, err := r.XReadGroup(ctx, &args).Result()
	equal(of("hr", reply, err), seen, "everything again, NOACK")
	equal(must(r.XPending(ctx, "hr", "replay").Result()).Count, 0, "nothing pending after NOACK")
}

func (c cases) xinfo() {
	r := c.r
	for n := 1; n <= 5; n++ {
		addAt(r, "xi", fmt.Sprintf("%d-0", n), "n", n)
	}
	must(r.XGroupCreate(ctx, "xi", "g1", "0").Result())
	must(r.XGroupCreate(ctx, "xi", "g2", "$").Result())
	must(read(r, "g1", "c", "xi", ">", 1))
	g1 := redis.XInfoGroup{Name: "g1", Consumers: 1, Pending: 1, LastDeliveredID: "1-0", EntriesRead: 1, Lag: 4}
	g2 := redis.XInfoGroup{Name: "g2", LastDeliveredID: "5-0"}
	found := must(r.XInfoGroups(ctx, "xi").Result())
	equal(found[0], g1, "a group that is four entries behind")
	must(r.XDel(ctx, "xi", "2-0").Result())
	equal(must(r.XGroupCreateConsumer(ctx, "xi", "g1", "idle").Result()), 1, "XGROUP CREATECONSUMER")
	info := *must(r.XInfoStream(ctx, "xi").Result())
	holds(0 < info.RadixTreeKeys && 0 < info.RadixTreeNodes, "the radix tree's fields")
	expected := redis.XInfoStream{
		Length: 4, RadixTreeKeys: info.RadixTreeKeys, RadixTreeNodes: info.RadixTreeNodes, Groups: 2,
		LastGeneratedID: "5-0", MaxDeletedEntryID: "2-0", EntriesAdded: 5, RecordedFirstEntryID: "1-0",
		FirstEntry: entries(1, "1-0")[0], LastEntry: entries(5, "5-0")[0],
	}
	// Redis 7 does not say more.
	expected.IDMPDuration, expected.IDMPMaxSize = info.IDMPDuration, info.IDMPMaxSize
	equal(info, expected, "XINFO STREAM")
	found = must(r.XInfoGroups(ctx, "xi").Result())
	// What is deleted behind the position makes the lag unknown. What g2 has read is unknown, too: Redis has no number.
	g1.Consumers, g1.Lag, g2.EntriesRead = 2, -1, found[1].EntriesRead
	equal(found, []redis.XInfoGroup{g1, g2}, "XINFO GROUPS")
	consumers := must(r.XInfoConsumers(ctx, "xi", "g1").Result())
	equal(len(consumers), 2, "XINFO CONSUMERS")
	for at, name := range []string{"c", "idle"} {
		one := consumers[at]
		equal(redis.XInfoConsumer{Name: one.Name, Pending: one.Pending},
			redis.XInfoConsumer{Name: name, Pending: int64(1 - at)}, "a consumer")
		holds(0 <= one.Idle && one.Idle < time.Minute, "its idle time")
	}
	full := must(r.XInfoStreamFull(ctx, "xi", 10).Result())
	equal(full.Entries, append(entries(1, "1-0"), entries(3, "3-0", "4-0", "5-0")...), "XINFO STREAM FULL, entries")
	group := full.Groups[0]
	equal([]any{group.Name, group.PelCount, group.LastDeliveredID}, []any{"g1", int64(1), "1-0"}, "a group in FULL")
	equal(len(group.Pending), 1, "pending entries in FULL")
	pending := group.Pending[0]
	equal([]any{pending.ID, pending.Consumer, pending.DeliveryCount}, []any{"1-0", "c", int64(1)}, "one of them")
	holds(time.Since(pending.DeliveryTime).Abs() < time.Minute, "its delivery time")
	equal(len(group.Consumers), 2, "consumers in FULL")
	for at, name := range []string{"c", "idle"} {
		equal(group.Consumers[at].Name, name, "a consumer in FULL")
		equal(group.Consumers[at].PelCount, int64(1-at), "its pending entries")
	}
	equal(errorOf(r.XInfoStream(ctx, "nothing").Err()), "ERR no such key", "XINFO STREAM of a missing stream")
	nogroup := "NOGROUP No such consumer group 'nobody' for key name 'xi'"
	equal(errorOf(r.XInfoConsumers(ctx, "xi", "nobody").Err()), nogroup, "XINFO CONSUMERS of a missing group")
}

func (c cases) blocking() {
	r, client := c.r, c.another(0)
	defer client.Close()
	blocked := func(block time.Duration, keys ...string) func() ([]redis.XStream, error) {
		return inBackground(func() ([]redis.XStream, error) {
			return client.XRead(ctx, &redis.XReadArgs{Streams: keys, ID: "$", Block: block}).Result()
		})
	}
	began := time.Now()
	holds(ignore(blocked(300*time.Millisecond, "bl")()) == redis.Nil, "XREAD BLOCK without an entry")
	took := time.Since(began)
	holds(290*time.Millisecond <= took && took < 2*time.Second, "BLOCK 300 took %v", took)
	must(r.XGroupCreateMkStream(ctx, "bl", "g", "$").Result())
	// Once would not do: the wrong order may be rare.
	for n := range 20 {
		c.firstBlockedFirstServed(fmt.Sprintf("bl-%d", n), n%2)
	}

	forever := blocked(0, "bl", "bl-other")
	waitBlocked(r, 1)
	id := add(r, "bl-other", "n", 0)
	reply, err := forever()
	equal(of("bl-other", reply, err), entries(0, id), "XREAD BLOCK 0 of two streams")

	// A client takes its connections from a pool; this has one of its own.
	conn := client.Conn()
	defer conn.Close()
	clientID := must(conn.ClientID(ctx).Result())
	stopped := inBackground(func() ([]redis.XStream, error) {
		return conn.XRead(ctx, &redis.XReadArgs{Streams: []string{"bl", "$"}}).Result()
	})
	waitBlocked(r, 1)
	equal(must(r.ClientUnblock(ctx, clientID).Result()), 1, "CLIENT UNBLOCK")
	holds(ignore(stopped()) == redis.Nil, "a reader that CLIENT UNBLOCK stopped")
	equal(must(r.ClientUnblock(ctx, clientID).Result()), 0, "CLIENT UNBLOCK of a client that is not blocked")
	stopped = blocked(0, "bl")
	waitBlocked(r, 1)
	line := ""
	for _, one := range strings.Split(must(r.ClientList(ctx).Result()), "\n") {
		if strings.Contains(one, "cmd=xread ") && strings.Contains(one, "flags=b ") {
			line = strings.TrimPrefix(strings.Fields(one)[0], "id=")
		}
	}
	clientID = must(strconv.ParseInt(line, 10, 64))
	equal(must(r.ClientUnblockWithError(ctx, clientID).Result()), 1, "CLIENT UNBLOCK ERROR")
	text := errorOf(ignore(stopped()))
	equal(text, "UNBLOCKED client unblocked via CLIENT UNBLOCK", "a reader that it stopped with an error")

	orphan := inBackground(func() ([]redis.XStream, error) {
		return readBlocked(client, "g", "c", "bl", ">", 0, 4*time.Second)
	})
	waitBlocked(r, 1)
	equal(must(r.Del(ctx, "bl").Result()), 1, "DEL")
	text = errorOf(ignore(orphan()))
	texts := []string{
		"NOGROUP No such key 'bl' or consumer group 'g' in XREADGROUP with GROUP option",
		"UNBLOCKED the stream key no longer exists", // before Redis 7.2
	}
	holds(slices.Contains(texts, text), "a reader whose stream was deleted: %s", text)
}

func (c cases) firstBlockedFirstServed(key string, turn int) {
	door := c.another(turn)
	defer door.Close()
	must(door.XGroupCreateMkStream(ctx, key, "g", "$").Result())
	waits := []func() ([]redis.XStream, error){}
	for n := range 2 {
		waits = append(waits, inBackground(func() ([]redis.XStream, error) {
			return readBlocked(door, "g", fmt.Sprintf("c%d", n), key, ">", 1, 4*time.Second)
		}))
		waitBlocked(door, n+1)
	}
	made := c.append(key, 2)
	for n, wait := range waits {
		reply, err := wait()
		equal(of(key, reply, err), entries(n, made[n]), fmt.Sprintf("blocked reader %d, door %d", n, turn))
	}
	waitBlocked(door, 0)
}

func (c cases) pipeline() {
	r := c.r
	pipe := r.Pipeline()
	adds := []*redis.StringCmd{}
	for n := range 200 {
		adds = append(adds, pipe.XAdd(ctx, &redis.XAddArgs{Stream: "pl", Values: []any{"n", n}}))
	}
	length := pipe.XLen(ctx, "pl")
	must(pipe.Exec(ctx))
	equal(length.Val(), 200, "XLEN at the end of the pipeline")
	made := []string{}
	for _, one := range adds {
		made = append(made, one.Val())
	}
	equal(c.all("pl"), entries(0, made...), "replies in order")
	first := pipe.XAdd(ctx, &redis.XAddArgs{Stream: "pl", Values: []any{"n", 200}})
	pipe.XAdd(ctx, &redis.XAddArgs{Stream: "pl", ID: "1-1", Values: []any{"n", "b"}})
	length = pipe.XLen(ctx, "pl")
	acked := pipe.XAck(ctx, "pl", "nobody", "1-1")
	text := errorOf(ignore(pipe.Exec(ctx)))
	small := "ERR The ID specified in XADD is equal or smaller than the target stream top item"
	equal(text, small, "an error among replies")
	equal([]int64{must(length.Result()), must(acked.Result())}, []int64{201, 0}, "the replies after it")
	newest := must(r.XRevRangeN(ctx, "pl", "+", "-", 1).Result())
	equal(newest, entries(200, must(first.Result())), "the entry before the error")
}

func (c cases) transaction() {
	r := c.r
	must(r.XGroupCreateMkStream(ctx, "tx", "g", "0").Result())
	first := add(r, "tx", "n", 0)
	must(read(r, "g", "c", "tx", ">", 0))
	var second, dead *redis.StringCmd
	var acked, length *redis.IntCmd
	var pending *redis.XPendingCmd
	must(r.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		second = tx.XAdd(ctx, &redis.XAddArgs{Stream: "tx", Values: []any{"n", 1}})
		dead = tx.XAdd(ctx, &redis.XAddArgs{Stream: "tx-dead", Values: []any{"n", 0, "origin", first}})
		acked, length, pending = tx.XAck(ctx, "tx", "g", first), tx.XLen(ctx, "tx"), tx.XPending(ctx, "tx", "g")
		return nil
	}))
	equal([]int64{acked.Val(), length.Val(), pending.Val().Count}, []int64{1, 2, 0}, "replies of EXEC")
	equal(c.all("tx"), entries(0, first, second.Val()), "the stream after EXEC")
	letter := redis.XMessage{ID: dead.Val(), Values: map[string]any{"n": "0", "origin": first}}
	equal(c.all("tx-dead"), []redis.XMessage{letter}, "the other stream after EXEC")
	replies, err := r.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.XAdd(ctx, &redis.XAddArgs{Stream: "tx", Values: []any{"n", 2}})
		tx.XAdd(ctx, &redis.XAddArgs{Stream: "tx", ID: "1-1", Values: []any{"n", "too small"}})
		tx.XAdd(ctx, &redis.XAddArgs{Stream: "tx", Values: []any{"n", 3}})
		return nil
	})
	holds(err != nil && replies[0].Err() == nil && replies[1].Err() != nil && replies[2].Err() == nil,
		"an error within EXEC: %v", replies)
	all := c.all("tx")
	equal(all, entries(0, ids(all)...), "the others of that EXEC took place")
	equal(len(all), 4, "how many there are")
	_, err = r.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.XAdd(ctx, &redis.XAddArgs{Stream: "tx", Values: []any{"n", 4}})
		tx.Do(ctx, "XADD", "tx", "*", "odd")
		return nil
	})
	abort := "EXECABORT Transaction discarded because of previous errors."
	equal(errorOf(err), abort, "a refused command refuses EXEC")
	equal(must(r.XLen(ctx, "tx").Result()), 4, "nothing of the refused EXEC took place")
	conn := r.Conn()
	defer conn.Close()
	must(conn.Do(ctx, "MULTI").Result())
	equal(must(conn.Do(ctx, "XADD", "tx", "*", "n", "7").Text()), "QUEUED", "a command after MULTI")
	equal(must(conn.Do(ctx, "DISCARD").Text()), "OK", "DISCARD")
	equal(errorOf(conn.Do(ctx, "EXEC").Err()), "ERR EXEC without MULTI", "EXEC after DISCARD")
	equal(must(r.XLen(ctx, "tx").Result()), 4, "nothing after DISCARD")
}

func (c cases) watch() {
	r, other := c.r, c.another(2)
	defer other.Close()
	add(r, "wa", "n", 0)
	// EXEC with one XADD, after `between` on the connection that watches.
	exec := func(between func(tx *redis.Tx), keys ...string) error {
		return r.Watch(ctx, func(tx *redis.Tx) error {
			between(tx)
			return ignore(tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.XAdd(ctx, &redis.XAddArgs{Stream: "wa", Values: []any{"n", 1}})
				return nil
			}))
		}, keys...)
	}
	must(0, exec(func(tx *redis.Tx) { equal(must(tx.XLen(ctx, "wa").Result()), 1, "XLEN after WATCH") }, "wa"))
	changed := exec(func(*redis.Tx) { add(other, "wa-other", "n", 0) }, "wa", "wa-other")
	holds(errors.Is(changed, redis.TxFailedErr), "EXEC after a change: %v", changed)
	equal(must(r.XLen(ctx, "wa").Result()), 2, "nothing of it took place")
	must(0, exec(func(tx *redis.Tx) {
		add(other, "wa", "n", 3)
		equal(must(tx.Unwatch(ctx).Result()), "OK", "UNWATCH")
	}, "wa"))
	equal(must(r.XLen(ctx, "wa").Result()), 4, "at the end")
}

func (c cases) errors() {
	addAt(c.r, "er", "5-5", "a", "b")
	rows := [][2]string{
		{"XADD er 5-5 a b", "ERR The ID specified in XADD is equal or smaller than the target stream top item"},
		{"XADD er 0-0 a b", "ERR The ID specified in XADD must be greater than 0-0"},
		{"XADD er abc a b", "ERR Invalid stream ID specified as stream command argument"},
		{"XADD er * a", "ERR wrong number of arguments for 'xadd' command"},
		{"XRANGE er - + COUNT x", "ERR value is not an integer or out of range"},
		{"XREAD BLOCK -1 STREAMS er $", "ERR timeout is negative"},
		{
			"XREADGROUP GROUP g c STREAMS er >",
			"NOGROUP No such key 'er' or consumer group 'g' in XREADGROUP with GROUP option",
		},
		{"XPENDING er g", "NOGROUP No such key 'er' or consumer group 'g'"},
		{
			"XGROUP CREATE nothing g 0",
			"ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the " +
				"MKSTREAM option to create an empty stream automatically.",
		},
		{"XGROUP NOSUCH er", "ERR unknown subcommand 'NOSUCH'. Try XGROUP HELP."},
		{"XTRIM er MAXLEN -1", "ERR The MAXLEN argument must be >= 0."},
		{"NOSUCHCOMMAND a b", "ERR unknown command 'NOSUCHCOMMAND', with args beginning with: 'a' 'b' "},
	}
	for _, row := range rows {
		words := []any{}
		for _, word := range strings.Fields(row[0]) {
			words = append(words, word)
		}
		equal(errorOf(c.r.Do(ctx, words...).Err()), row[1], row[0])
	}
	equal(must(c.r.XLen(ctx, "er").Result()), 1, "nothing was added")
}

func (c cases) keys() {
	r := c.r
	must(r.FlushAll(ctx).Result())
	for _, name := range []string{"orders:1", "orders:2", "events:1"} {
		add(r, name, "a", "b")
	}
	sorted := func(found []string, err error) []string {
		slices.Sort(must(found, err))
		return found
	}
	equal(must(r.DBSize(ctx).Result()), 3, "DBSIZE")
	equal(must(r.Exists(ctx, "orders:1", "events:1", "nothing", "orders:1").Result()), 3, "EXISTS")
	equal(must(r.Type(ctx, "orders:1").Result()), "stream", "TYPE")
	equal(must(r.Type(ctx, "nothing").Result()), "none", "TYPE of nothing")
	equal(sorted(r.Keys(ctx, "orders:*").Result()), []string{"orders:1", "orders:2"}, "KEYS")
	equal(sorted(r.Keys(ctx, "?????s:[13]").Result()), []string{"events:1", "orders:1"}, "KEYS with a class")
	scan := func(pattern, kind string) []string {
		found, pages := []string{}, r.ScanType(ctx, 0, pattern, 1, kind).Iterator()
		for pages.Next(ctx) {
			found = append(found, pages.Val())
		}
		return sorted(found, pages.Err())
	}
	equal(scan("*:1", "stream"), []string{"events:1", "orders:1"}, "SCAN")
	equal(scan("*", "string"), []string{}, "SCAN of another type")
	equal(must(r.Del(ctx, "orders:1", "nothing").Result()), 1, "DEL")
	equal(must(r.Unlink(ctx, "orders:2").Result()), 1, "UNLINK")
	equal(must(r.Keys(ctx, "*").Result()), []string{"events:1"}, "what is left")
	equal(must(r.FlushDB(ctx).Result()), "OK", "FLUSHDB")
	equal(len(must(r.Keys(ctx, "*").Result())), 0, "KEYS after FLUSHDB")
}

func (c cases) idsAndBytes() {
	r := c.r
	equal(addAt(r, "ib", "7-*", "a", "b"), "7-0", "a partial id")
	equal(addAt(r, "ib", "7-*", "a", "b"), "7-1", "the next of it")
	equal(addAt(r, "ib", "8", "a", "b"), "8-0", "an id without its second part")
	none := r.XAdd(ctx, &redis.XAddArgs{Stream: "nothing", NoMkStream: true, Values: []any{"a", "b"}}).Err()
	holds(none == redis.Nil, "NOMKSTREAM: %v", none)
	equal(must(r.Exists(ctx, "nothing").Result()), 0, "no stream came of it")
	every := make([]byte, 256)
	for n := range every {
		every[n] = byte(n)
	}
	fields := map[string]any{"\xff\x00raw": string(every), "empty": "", "grüße": "日本語🌊"}
	id := must(r.XAdd(ctx, &redis.XAddArgs{Stream: "ib", Values: fields}).Result())
	equal(must(r.XRange(ctx, "ib", id, id).Result()), []redis.XMessage{{ID: id, Values: fields}}, "bytes come back")
	large := make([]byte, 300_000)
	for n := range large {
		large[n] = byte(n % 251)
	}
	add(r, "ib", "large", large)
	newest := must(r.XRevRangeN(ctx, "ib", "+", "-", 1).Result())
	holds(newest[0].Values["large"] == string(large), "a large value")
	addAt(r, "ib-twice", "1-1", "f", "1", "f", "2", "f", "1")
	// go-redis makes a map of the fields.
	twice := must(r.Do(ctx, "XRANGE", "ib-twice", "-", "+").Slice())
	expected := []any{[]any{"1-1", []any{"f", "1", "f", "2", "f", "1"}}}
	equal(twice, expected, "repeated fields keep their order")
}

func (c cases) anyDoor() {
	doors := []*redis.Client{c.another(0), c.another(1), c.another(2)}
	made := []string{}
	for n := range 60 {
		made = append(made, add(doors[n%3], "ad", "n", n))
		newest := must(doors[(n+1)%3].XRevRangeN(ctx, "ad", "+", "-", 1).Result())
		equal(newest, entries(n, made[n]), "the newest entry at the next door")
		equal(must(doors[(n+2)%3].XLen(ctx, "ad").Result()), int64(n+1), "XLEN at the one after")
	}
	must(doors[0].XGroupCreate(ctx, "ad", "g", "0").Result())
	for n := range 6 {
		reply, err := read(doors[n%3], "g", "c", "ad", ">", 1)
		equal(of("ad", reply, err), entries(n, made[n]), "delivered in order, each once")
		equal(must(doors[(n+1)%3].XPending(ctx, "ad", "g").Result()).Count, 1, "XPENDING at the next door")
		equal(must(doors[(n+2)%3].XAck(ctx, "ad", "g", made[n]).Result()), 1, "XACK at the one after")
	}
	for n, door := range doors {
		blocked := inBackground(func() ([]redis.XStream, error) {
			return door.XRead(ctx, &redis.XReadArgs{Streams: []string{"ad-wake", "$"}, Block: 4 * time.Second}).Result()
		})
		waitBlocked(door, 1)
		id := add(doors[(n+1)%3], "ad-wake", "n", n)
		reply, err := blocked()
		equal(of("ad-wake", reply, err), entries(n, id), "a reader blocked at one door, woken by another")
	}
	equal(must(doors[1].FlushAll(ctx).Result()), "OK", "FLUSHALL")
	for _, door := range doors {
		equal(must(door.DBSize(ctx).Result()), 0, "DBSIZE at every door")
		door.Close()
	}
}
