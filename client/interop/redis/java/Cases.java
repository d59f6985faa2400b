import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import redis.clients.jedis.AbstractTransaction;
import redis.clients.jedis.CommandArguments;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Protocol.Command;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.Response;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.args.UnblockType;
import redis.clients.jedis.commands.ProtocolCommand;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.XAddParams;
import redis.clients.jedis.params.XAutoClaimParams;
import redis.clients.jedis.params.XClaimParams;
import redis.clients.jedis.params.XPendingParams;
import redis.clients.jedis.params.XReadGroupParams;
import redis.clients.jedis.params.XReadParams;
import redis.clients.jedis.params.XTrimParams;
import redis.clients.jedis.resps.StreamEntry;
import redis.clients.jedis.resps.StreamPendingEntry;
import redis.clients.jedis.util.SafeEncoder;

/** Every case of cases.txt, in Jedis's words. Entries have no equality, so they are compared as text: `1-0 {n=1}`. */
class Cases {
  private static final StreamEntryID NEW = StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY;
  private static final StreamEntryID LAST = StreamEntryID.XREAD_NEW_ENTRY;
  private static final StreamEntryID ZERO = new StreamEntryID();

  private final Main.Setting setting;
  private final RedisClient r;

  Cases(Main.Setting setting) {
    this.setting = setting;
    this.r = setting.connect(0);
  }

  void run(Support.Report report) {
    report.run(null, r::flushAll);
    report.run("order-tracker", this::orderTracker);
    report.run("producer-consumer", this::producerConsumer);
    report.run("group-acks", this::groupAcks);
    report.run("pending-recovery", this::pendingRecovery);
    report.run("trim-length", this::trimLength);
    report.run("trim-time", this::trimTime);
    report.run("history-replay", this::historyReplay);
    report.run("xinfo", this::xinfo);
    report.run("blocking", this::blocking);
    report.run("pipeline", this::pipeline);
    report.run("transaction", this::transaction);
    report.run("watch", this::watch);
    report.run("errors", this::errors);
    report.run("keys", this::keys);
    report.run("ids-and-bytes", this::idsAndBytes);
    report.run("any-door", this::anyDoor);
  }

  private static void equal(Object got, Object expected, String what) {
    Support.equal(got, expected, what);
  }

  private static XAddParams at(String id) {
    return XAddParams.xAddParams().id(id);
  }

  private static StreamEntryID add(RedisClient to, String key, Object n) {
    return to.xadd(key, XAddParams.xAddParams(), Map.of("n", "" + n));
  }

  private List<StreamEntryID> append(String key, int count) {
    return IntStream.range(0, count).mapToObj(n -> add(r, key, n)).toList();
  }

  private static List<String> texts(Collection<?> list) {
    return list.stream().map(Object::toString).toList();
  }

  /** Entries with these ids and a field n; `from` is the n of the first one. */
  private static List<String> entries(int from, List<?> ids) {
    return IntStream.range(0, ids.size()).mapToObj(at -> ids.get(at) + " {n=" + (from + at) + "}").toList();
  }

  private static List<String> entries(int from, StreamEntryID id) {
    return entries(from, List.of(id));
  }

  private List<String> all(String key) {
    return texts(r.xrange(key, "-", "+"));
  }

  private static List<StreamEntryID> ids(List<StreamEntry> entries) {
    return entries.stream().map(StreamEntry::getID).toList();
  }

  private List<String> idsOf(String key, String start, String end) {
    return texts(ids(r.xrange(key, start, end)));
  }

  private static StreamEntryID[] array(List<StreamEntryID> ids) {
    return ids.toArray(StreamEntryID[]::new);
  }

  /** What a command is answered that Jedis has no method for, or whose reply it does not hand on whole. */
  private Object raw(String... words) {
    ProtocolCommand name = () -> SafeEncoder.encode(words[0]);
    var command = new CommandArguments(name);
    for (int at = 1; at < words.length; at++) command.add(words[at]);
    return SafeEncoder.encodeObject(r.executeCommand(command));
  }

  private static XReadGroupParams count(int count) {
    return XReadGroupParams.xReadGroupParams().count(count);
  }

  /** What XREAD and XREADGROUP replied, of one stream; empty if there was nothing. */
  private static List<StreamEntry> of(String key, Map<String, List<StreamEntry>> reply) {
    if (reply == null || reply.isEmpty()) return List.of();
    equal(List.copyOf(reply.keySet()), List.of(key), "the stream's name");
    return reply.get(key);
  }

  private List<StreamEntry> read(String group, String consumer, String key, StreamEntryID after, XReadGroupParams how) {
    return of(key, r.xreadGroupAsMap(group, consumer, how, Map.of(key, after)));
  }

  private static Future<Map<String, List<StreamEntry>>> blocked(RedisClient by, int block, String... keys) {
    Map<String, StreamEntryID> streams = new LinkedHashMap<>();
    for (var key : keys) streams.put(key, LAST);
    return Support.inBackground(() -> by.xreadAsMap(XReadParams.xReadParams().block(block), streams));
  }

  /** Waits until so many clients of a door are blocked. */
  private static void waitBlocked(RedisClient door, int count) {
    long deadline = System.currentTimeMillis() + 5_000;
    // Without a pause: who counts as blocked must have its place in the queue.
    while (!door.info("clients").contains("blocked_clients:" + count + "\r\n")) {
      Support.holds(System.currentTimeMillis() < deadline, count + " clients are blocked");
    }
  }

  private void orderTracker() {
    add(r, "left-over", "b");
    equal(r.flushAll(), "OK", "FLUSHALL");
    equal(r.dbSize(), 0L, "keys after FLUSHALL");
    List<String> expected = new ArrayList<>();
    for (int n = 0; n < 5; n++) {
      var data = Support.order(n, "created");
      expected.add(r.xadd("orders:stream", XAddParams.xAddParams(), Map.of("data", data)) + " {data=" + data + "}");
    }
    equal(r.xlen("orders:stream"), 5L, "XLEN");
    equal(all("orders:stream"), expected, "the history");
    var newest = texts(r.xrevrange("orders:stream", "+", "-", 2));
    equal(newest, List.of(expected.get(4), expected.get(3)), "newest first");
    for (var data : List.of(Support.order(1, "paid"), Support.order(3, "paid"), Support.order(1, "shipped"))) {
      r.xadd("orders:stream", XAddParams.xAddParams(), Map.of("data", data));
    }
    Map<String, String> latest = new TreeMap<>();
    for (var entry : r.xrange("orders:stream", "-", "+")) {
      var parts = entry.getFields().get("data").split("\"");
      latest.put(parts[3], parts[parts.length - 2]);
    }
    var statuses = "{order-0=created, order-1=shipped, order-2=created, order-3=paid, order-4=created}";
    equal(latest.toString(), statuses, "the latest status of each order");
  }

  private void producerConsumer() throws Exception {
    var produced = Support.inBackground(() -> {
      try (var producer = setting.connect(1)) {
        return IntStream.range(0, 50).mapToObj(n -> add(producer, "pc", n)).toList();
      }
    });
    List<StreamEntry> seen = new ArrayList<>();
    for (var last = ZERO; seen.size() < 50; last = seen.get(seen.size() - 1).getID()) {
      var found = of("pc", r.xreadAsMap(XReadParams.xReadParams().count(10).block(2_000), Map.of("pc", last)));
      Support.holds(!found.isEmpty(), "entries before the time ran out");
      seen.addAll(found);
    }
    equal(texts(seen), entries(0, Support.wait(produced)), "what the consumer saw");
  }

  private void groupAcks() {
    equal(r.xgroupCreate("ga", "workers", ZERO, true), "OK", "XGROUP CREATE MKSTREAM");
    var busy = Support.errorOf(() -> r.xgroupCreate("ga", "workers", ZERO, false));
    equal(busy, "BUSYGROUP Consumer Group name already exists", "a second XGROUP CREATE");
    var made = append("ga", 20);
    Map<String, List<StreamEntryID>> got = new HashMap<>();
    for (var consumer : List.of("alice", "bob", "bob", "alice")) {
      var found = ids(read("workers", consumer, "ga", NEW, count(5)));
      got.computeIfAbsent(consumer, any -> new ArrayList<>()).addAll(found);
    }
    List<StreamEntryID> outer = new ArrayList<>(made.subList(0, 5));
    outer.addAll(made.subList(15, 20));
    equal(got, Map.of("alice", outer, "bob", made.subList(5, 15)), "who got what");
    equal(read("workers", "alice", "ga", NEW, count(5)), List.of(), "nothing is left");
    var pending = r.xpending("ga", "workers");
    equal(List.of(pending.getTotal(), pending.getMinId(), pending.getMaxId(), pending.getConsumerMessageCount()),
        List.of(20L, made.get(0), made.get(19), Map.of("alice", 10L, "bob", 10L)), "XPENDING");
    equal(r.xack("ga", "workers", array(outer)), 10L, "XACK");
    equal(r.xack("ga", "workers", outer.get(0), got.get("bob").get(0)), 1L, "XACK, one of them again");
    equal(r.xpending("ga", "workers").getConsumerMessageCount(), Map.of("bob", 9L), "XPENDING after XACK");
    equal(r.xack("ga", "workers", array(got.get("bob"))), 9L, "XACK of the rest");
    pending = r.xpending("ga", "workers");
    equal(Arrays.asList(pending.getTotal(), pending.getMinId(), pending.getMaxId(), pending.getConsumerMessageCount()),
        Arrays.asList(0L, null, null, null), "XPENDING at the end");
  }

  private List<StreamPendingEntry> rows(XPendingParams more) {
    return r.xpending("pr", "g", more.count(10));
  }

  private void pendingRecovery() {
    var made = append("pr", 6);
    r.xgroupCreate("pr", "g", ZERO, false);
    read("g", "gone", "pr", NEW, XReadGroupParams.xReadGroupParams());
    var range = XPendingParams.xPendingParams("-", "+", 10);
    var rows = rows(range);
    equal(rows.stream().map(StreamPendingEntry::getID).toList(), made, "ids of XPENDING");
    for (var row : rows) {
      equal(row.getConsumerName() + row.getDeliveredTimes(), "gone1", "a row of XPENDING");
      Support.holds(0 <= row.getIdleTime() && row.getIdleTime() < 60_000, "idle time " + row.getIdleTime());
    }
    equal(rows(XPendingParams.xPendingParams("-", "+", 10).consumer("nobody")), List.of(), "XPENDING of nobody");
    equal(rows(XPendingParams.xPendingParams("-", "+", 10).idle(60_000)), List.of(), "XPENDING IDLE");
    var claim = XClaimParams.xClaimParams();
    equal(r.xclaim("pr", "g", "heir", 60_000, claim, made.get(0)), List.of(), "XCLAIM of an entry too young");
    equal(texts(r.xclaim("pr", "g", "heir", 0, claim, made.get(0))), entries(0, made.get(0)), "XCLAIM");
    var row = rows(range).get(0);
    equal(row.getConsumerName() + row.getDeliveredTimes(), "heir2", "the claimed row");
    equal(r.xdel("pr", made.get(3)), 1L, "XDEL");
    var auto = XAutoClaimParams.xAutoClaimParams();
    var first = r.xautoclaim("pr", "g", "heir", 0, ZERO, XAutoClaimParams.xAutoClaimParams().count(2));
    equal(first.getKey(), made.get(2), "XAUTOCLAIM, the cursor");
    equal(texts(first.getValue()), entries(0, made.subList(0, 2)), "XAUTOCLAIM, first page");
    // Jedis does not hand on which entries were deleted.
    var rest = raw("XAUTOCLAIM", "pr", "g", "heir", "0", first.getKey().toString());
    var left = List.of(made.get(2), List.of("n", "2"), made.get(4), List.of("n", "4"), made.get(5), List.of("n", "5"));
    equal(rest.toString().replaceAll("[\\[\\] ]", ""),
        ("0-0," + left + "," + made.get(3)).replaceAll("[\\[\\] ]", ""), "XAUTOCLAIM, the rest");
    var young = r.xautoclaim("pr", "g", "heir", 60_000, ZERO, auto);
    equal(young.getKey() + "" + young.getValue(), "0-0[]", "XAUTOCLAIM of entries too young");
    var just = r.xautoclaimJustId("pr", "g", "third", 0, ZERO, XAutoClaimParams.xAutoClaimParams().count(1));
    equal(List.of(just.getKey(), just.getValue()), List.of(made.get(1), made.subList(0, 1)), "XAUTOCLAIM JUSTID");
    var times = rows(range).stream().map(one -> one.getID() + " " + one.getDeliveredTimes()).toList();
    var expected = Stream.of(0, 1, 2, 4, 5).map(n -> made.get(n) + (n == 0 ? " 3" : " 2")).toList();
    equal(times, expected, "times delivered");
    equal(r.xgroupDelConsumer("pr", "g", "heir"), 4L, "XGROUP DELCONSUMER");
    equal(r.xgroupDelConsumer("pr", "g", "gone"), 0L, "XGROUP DELCONSUMER without pending entries");
    equal(r.xpending("pr", "g").getTotal(), 1L, "what is pending at the end");
  }

  private void trimLength() {
    List<StreamEntryID> made = new ArrayList<>();
    var ten = XAddParams.xAddParams().maxLen(10).exactTrimming();
    for (int n = 0; n < 15; n++) made.add(r.xadd("tl", ten, Map.of("n", "" + n)));
    equal(idsOf("tl", "-", "+"), texts(made.subList(5, 15)), "the newest ten");
    equal(r.xtrim("tl", 4, false), 6L, "XTRIM MAXLEN");
    equal(idsOf("tl", "-", "+"), texts(made.subList(11, 15)), "the newest four");
    equal(r.xtrim("tl", XTrimParams.xTrimParams().maxLen(4).exactTrimming()), 0L, "XTRIM MAXLEN again");
    try (var pipe = r.pipelined()) {
      var thousand = XAddParams.xAddParams().maxLen(1_000).approximateTrimming();
      for (int n = 0; n < 500; n++) pipe.xadd("tl", thousand, Map.of("n", "" + n));
    }
    equal(r.xlen("tl"), 504L, "XADD MAXLEN ~ 1000 leaves what is below it");
    long removed = r.xtrim("tl", 100, true);
    long left = r.xlen("tl");
    Support.holds(100 <= left && removed + left == 504 && 0 < removed,
        "XTRIM MAXLEN ~ 100 removed " + removed + ", left " + left);
    equal(r.xtrim("tl", 0, false), left, "XTRIM MAXLEN 0");
    equal(r.xlen("tl"), 0L, "XLEN of an empty stream");
    equal(r.exists("tl"), true, "an empty stream stays");
  }

  private void trimTime() {
    for (int ms = 1000; ms < 2000; ms += 100) r.xadd("tt", at(ms + "-1"), Map.of("n", "" + ms));
    equal(r.xtrim("tt", XTrimParams.xTrimParams().minId("1500").exactTrimming()), 5L, "XTRIM MINID");
    equal(texts(r.xrange("tt", "-", "+", 1)), List.of("1500-1 {n=1500}"), "the first that is left");
    equal(r.xtrim("tt", XTrimParams.xTrimParams().minId("1500-1")), 0L, "XTRIM MINID at the first");
    r.xadd("tt", at("2000-0").minId("1800-2").exactTrimming(), Map.of("n", "2000"));
    equal(idsOf("tt", "-", "+"), List.of("1900-1", "2000-0"), "XADD MINID");
    long now = add(r, "tt-now", 0).getTime();
    equal(r.xtrim("tt-now", XTrimParams.xTrimParams().minId("" + (now - 3_600_000))), 0L, "older than an hour");
    equal(r.xtrim("tt-now", XTrimParams.xTrimParams().minId("" + (now + 3_600_000))), 1L, "older than in an hour");
  }

  private void historyReplay() {
    for (int n = 0; n < 25; n++) r.xadd("hr", at((1000 + n / 5) + "-" + (n % 5 + 1)), Map.of("n", "" + n));
    List<Integer> pages = new ArrayList<>();
    List<String> seen = new ArrayList<>();
    for (var start = "-"; start != null;) {
      var page = r.xrange("hr", start, "+", 7);
      start = page.isEmpty() ? null : "(" + page.get(page.size() - 1).getID();
      if (start != null) pages.add(page.size());
      seen.addAll(texts(page));
    }
    equal(pages, List.of(7, 7, 7, 4), "the lengths of pages");
    equal(seen, all("hr"), "the pages");
    equal(seen.get(24), "1004-5 {n=24}", "the last entry");
    equal(idsOf("hr", "1002", "1002"), List.of("1002-1", "1002-2", "1002-3", "1002-4", "1002-5"), "one ms");
    equal(idsOf("hr", "1003-2", "(1003-4"), List.of("1003-2", "1003-3"), "a half-open range");
    equal(texts(r.xrevrange("hr", "1001", "-", 2)), List.of("1001-5 {n=9}", "1001-4 {n=8}"), "XREVRANGE");
    equal(idsOf("hr", "1004-4", "1004-3"), List.of(), "an empty range");
    equal(all("no-such-stream"), List.of(), "XRANGE of a missing stream");
    r.xgroupCreate("hr", "replay", new StreamEntryID("1004-2"), false);
    var plain = XReadGroupParams.xReadGroupParams();
    var expected = entries(22, List.of("1004-3", "1004-4", "1004-5"));
    equal(texts(read("replay", "c", "hr", NEW, plain)), expected, "after the group's position");
    equal(texts(read("replay", "c", "hr", ZERO, plain)), expected, "the consumer's own history");
    equal(r.xack("hr", "replay", new StreamEntryID("1004-3")), 1L, "XACK");
    var after = read("replay", "c", "hr", new StreamEntryID("1004-4"), plain);
    equal(texts(after), List.of("1004-5 {n=24}"), "its history after an id");
    r.xack("hr", "replay", new StreamEntryID("1004-4"), new StreamEntryID("1004-5"));
    equal(read("replay", "c", "hr", ZERO, plain), List.of(), "an empty history");
    equal(r.xgroupSetID("hr", "replay", ZERO), "OK", "XGROUP SETID");
    var noAck = XReadGroupParams.xReadGroupParams().noAck();
    equal(texts(read("replay", "c", "hr", NEW, noAck)), seen, "everything again, NOACK");
    equal(r.xpending("hr", "replay").getTotal(), 0L, "nothing pending after NOACK");
  }

  /** The named fields of a reply, so that newer servers may say more. */
  private static String pick(Map<String, Object> from, String... names) {
    List<Object> found = new ArrayList<>();
    for (var name : names) found.add(from.get(name) instanceof byte[] text ? SafeEncoder.encode(text) : from.get(name));
    return found.toString();
  }

  private void xinfo() {
    for (int n = 1; n <= 5; n++) r.xadd("xi", at(n + "-0"), Map.of("n", "" + n));
    r.xgroupCreate("xi", "g1", ZERO, false);
    r.xgroupCreate("xi", "g2", StreamEntryID.XGROUP_LAST_ENTRY, false);
    read("g1", "c", "xi", NEW, count(1));
    var groups = r.xinfoGroups("xi");
    var behind = pick(groups.get(0).getGroupInfo(), "name", "entries-read", "lag");
    equal(behind, "[g1, 1, 4]", "a group that is four entries behind");
    r.xdel("xi", new StreamEntryID("2-0"));
    equal(r.xgroupCreateConsumer("xi", "g1", "idle"), true, "XGROUP CREATECONSUMER");
    var info = r.xinfoStream("xi");
    var told = pick(info.getStreamInfo(), "length", "last-generated-id", "max-deleted-entry-id", "entries-added",
        "recorded-first-entry-id", "groups", "first-entry", "last-entry");
    equal(told, "[4, 5-0, 2-0, 5, 1-0, 2, 1-0 {n=1}, 5-0 {n=5}]", "XINFO STREAM");
    Support.holds(0 < info.getRadixTreeKeys() && 0 < info.getRadixTreeNodes(), "the radix tree's fields");
    groups = r.xinfoGroups("xi");
    equal(groups.size(), 2, "groups");
    // What is deleted behind the position makes the lag unknown.
    var names = new String[] {"name", "consumers", "pending", "last-delivered-id", "entries-read", "lag"};
    equal(pick(groups.get(0).getGroupInfo(), names), "[g1, 2, 1, 1-0, 1, null]", "XINFO GROUPS, first");
    names[4] = "name";
    equal(pick(groups.get(1).getGroupInfo(), names), "[g2, 0, 0, 5-0, g2, 0]", "XINFO GROUPS, second");
    var consumers = r.xinfoConsumers2("xi", "g1");
    equal(consumers.stream().map(one -> one.getName() + one.getPending()).toList(), List.of("c1", "idle0"),
        "XINFO CONSUMERS");
    for (var one : consumers) Support.holds(0 <= one.getIdle() && one.getIdle() < 60_000, "idle times of consumers");
    var full = r.xinfoStreamFull("xi");
    var entries = List.of("1-0 {n=1}", "3-0 {n=3}", "4-0 {n=4}", "5-0 {n=5}");
    equal(texts(full.getEntries()), entries, "XINFO STREAM FULL, entries");
    var group = full.getGroups().get(0);
    equal(group.getName() + group.getPelCount() + " " + group.getLastDeliveredId(), "g11 1-0", "a group in FULL");
    equal(group.getPending().size(), 1, "pending entries in FULL");
    var pending = group.getPending().get(0);
    equal(pending.get(0) + " " + pending.get(1) + pending.get(3), "1-0 c1", "one of them");
    var ago = System.currentTimeMillis() - (Long) pending.get(2);
    Support.holds(Math.abs(ago) < 60_000, "its delivery time, " + ago + " ms ago");
    equal(group.getConsumers().stream().map(one -> one.getName() + one.getPelCount()).toList(), List.of("c1", "idle0"),
        "consumers in FULL");
    equal(Support.errorOf(() -> r.xinfoStream("nothing")), "ERR no such key", "XINFO STREAM of a missing stream");
    var nogroup = "NOGROUP No such consumer group 'nobody' for key name 'xi'";
    equal(Support.errorOf(() -> r.xinfoConsumers2("xi", "nobody")), nogroup, "XINFO CONSUMERS of a missing group");
  }

  private void blocking() throws Exception {
    long began = System.nanoTime();
    equal(of("bl", Support.wait(blocked(r, 300, "bl"))), List.of(), "XREAD BLOCK without an entry");
    long took = (System.nanoTime() - began) / 1_000_000;
    Support.holds(290 <= took && took < 2_000, "BLOCK 300 took " + took + " ms");
    r.xgroupCreate("bl", "g", StreamEntryID.XGROUP_LAST_ENTRY, true);
    // Once would not do: the wrong order may be rare.
    for (int n = 0; n < 20; n++) firstBlockedFirstServed("bl-" + n, n % 2);

    var forever = blocked(r, 0, "bl", "bl-other");
    waitBlocked(r, 1);
    var id = add(r, "bl-other", 0);
    equal(texts(of("bl-other", Support.wait(forever))), entries(0, id), "XREAD BLOCK 0 of two streams");

    // Jedis's class with one connection, for commands that are about a connection.
    try (var reader = new Jedis(setting.address(0), setting.config().build());
        var other = new Jedis(setting.address(0), setting.config().build())) {
      long clientId = reader.clientId();
      Callable<Map<String, List<StreamEntry>>> read =
          () -> reader.xreadAsMap(XReadParams.xReadParams().block(0), Map.of("bl", LAST));
      var stopped = Support.inBackground(read);
      waitBlocked(r, 1);
      equal(other.clientUnblock(clientId), 1L, "CLIENT UNBLOCK");
      equal(of("bl", Support.wait(stopped)), List.of(), "a reader that CLIENT UNBLOCK stopped");
      equal(other.clientUnblock(clientId), 0L, "CLIENT UNBLOCK of a client that is not blocked");
      var failing = Support.inBackground(read);
      waitBlocked(r, 1);
      equal(other.clientUnblock(clientId, UnblockType.ERROR), 1L, "CLIENT UNBLOCK ERROR");
      var text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
      equal(Support.errorOf(() -> Support.wait(failing)), text, "a reader that it stopped with an error");
    }

    var orphan = Support.inBackground(() -> r.xreadGroupAsMap("g", "c", count(1).block(4_000), Map.of("bl", NEW)));
    waitBlocked(r, 1);
    equal(r.del("bl"), 1L, "DEL");
    var text = Support.errorOf(() -> Support.wait(orphan));
    Support.holds(
        text.equals("NOGROUP No such key 'bl' or consumer group 'g' in XREADGROUP with GROUP option")
            || text.equals("UNBLOCKED the stream key no longer exists"), // before Redis 7.2
        "a reader whose stream was deleted: " + text);
  }

  private void firstBlockedFirstServed(String key, int turn) throws Exception {
    try (var door = setting.connect(turn)) {
      door.xgroupCreate(key, "g", StreamEntryID.XGROUP_LAST_ENTRY, true);
      List<Future<Map<String, List<StreamEntry>>>> waits = new ArrayList<>();
      for (int n = 0; n < 2; n++) {
        var consumer = "c" + n;
        var how = count(1).block(4_000);
        waits.add(Support.inBackground(() -> door.xreadGroupAsMap("g", consumer, how, Map.of(key, NEW))));
        waitBlocked(door, n + 1);
      }
      var made = append(key, 2);
      for (int n = 0; n < 2; n++) {
        var found = texts(of(key, Support.wait(waits.get(n))));
        equal(found, entries(n, made.get(n)), "blocked reader " + n + ", door " + turn);
      }
      waitBlocked(door, 0);
    }
  }

  private void pipeline() {
    var small = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    try (var pipe = r.pipelined()) {
      for (int n = 0; n < 200; n++) pipe.xadd("pl", XAddParams.xAddParams(), Map.of("n", "" + n));
      pipe.xlen("pl");
      var replies = pipe.syncAndReturnAll();
      equal(replies.remove(200), 200L, "XLEN at the end of the pipeline");
      equal(all("pl"), entries(0, replies), "replies in order");
      pipe.xadd("pl", XAddParams.xAddParams(), Map.of("n", "200"));
      pipe.xadd("pl", at("1-1"), Map.of("n", "b"));
      pipe.xlen("pl");
      pipe.xack("pl", "nobody", new StreamEntryID("1-1"));
      replies = pipe.syncAndReturnAll();
      equal(((JedisDataException) replies.get(1)).getMessage(), small, "an error among replies");
      equal(replies.subList(2, 4), List.of(201L, 0L), "the replies after it");
      equal(texts(r.xrevrange("pl", "+", "-", 1)), entries(200, replies.subList(0, 1)), "the entry before the error");
    }
  }

  private void transaction() {
    r.xgroupCreate("tx", "g", ZERO, true);
    var first = add(r, "tx", 0);
    read("g", "c", "tx", NEW, count(1));
    var made = new ArrayList<StreamEntryID>(List.of(first));
    try (var tx = r.multi()) {
      Response<StreamEntryID> second = tx.xadd("tx", XAddParams.xAddParams(), Map.of("n", "1"));
      Response<StreamEntryID> dead = tx.xadd("tx-dead", XAddParams.xAddParams(), Map.of("origin", "" + first));
      Response<Long> acked = tx.xack("tx", "g", first);
      Response<Long> length = tx.xlen("tx");
      var pending = tx.xpending("tx", "g");
      tx.exec();
      equal(List.of(acked.get(), length.get(), pending.get().getTotal()), List.of(1L, 2L, 0L), "replies of EXEC");
      made.add(second.get());
      equal(all("tx-dead"), List.of(dead.get() + " {origin=" + first + "}"), "the other stream after EXEC");
    }
    equal(all("tx"), entries(0, made), "the stream after EXEC");
    try (var tx = r.multi()) {
      tx.xadd("tx", XAddParams.xAddParams(), Map.of("n", "2"));
      tx.xadd("tx", at("1-1"), Map.of("n", "too small"));
      tx.xadd("tx", XAddParams.xAddParams(), Map.of("n", "3"));
      var kinds = tx.exec().stream().map(reply -> reply instanceof JedisDataException).toList();
      equal(kinds, List.of(false, true, false), "an error within EXEC");
    }
    equal(all("tx"), entries(0, ids(r.xrange("tx", "-", "+"))), "the others of that EXEC took place");
    equal(r.xlen("tx"), 4L, "how many there are");
    try (var tx = r.multi()) {
      tx.xadd("tx", XAddParams.xAddParams(), Map.of("n", "4"));
      tx.sendCommand(Command.XADD, "tx", "*", "odd");
      var abort = "EXECABORT Transaction discarded because of previous errors.";
      equal(Support.errorOf(tx::exec), abort, "a refused command refuses EXEC");
    }
    equal(r.xlen("tx"), 4L, "nothing of the refused EXEC took place");
    try (var one = new Jedis(setting.address(0), setting.config().build())) {
      one.sendCommand(Command.MULTI);
      var queued = one.sendCommand(Command.XADD, "tx", "*", "n", "7");
      equal(SafeEncoder.encodeObject(queued), "QUEUED", "a command after MULTI");
      equal(SafeEncoder.encodeObject(one.sendCommand(Command.DISCARD)), "OK", "DISCARD");
      var text = Support.errorOf(() -> one.sendCommand(Command.EXEC));
      equal(text, "ERR EXEC without MULTI", "EXEC after DISCARD");
    }
    equal(r.xlen("tx"), 4L, "nothing after DISCARD");
  }

  /** EXEC with one XADD after WATCH and what happens in between; null if it was refused. */
  private List<Object> exec(Support.Work between, boolean unwatch, String... keys) throws Exception {
    try (AbstractTransaction tx = r.transaction(false)) {
      equal(tx.watch(keys), "OK", "WATCH");
      between.run();
      if (unwatch) equal(tx.unwatch(), "OK", "UNWATCH");
      tx.multi();
      tx.xadd("wa", XAddParams.xAddParams(), Map.of("n", "1"));
      return tx.exec();
    }
  }

  private void watch() throws Exception {
    add(r, "wa", 0);
    try (var other = setting.connect(2)) {
      equal(exec(() -> {}, false, "wa").size(), 1, "EXEC without a change");
      equal(exec(() -> add(other, "wa-other", 0), false, "wa", "wa-other"), null, "EXEC after a change");
      equal(r.xlen("wa"), 2L, "nothing of it took place");
      equal(exec(() -> add(other, "wa", 3), true, "wa").size(), 1, "EXEC after UNWATCH");
      equal(r.xlen("wa"), 4L, "at the end");
    }
  }

  private void errors() {
    r.xadd("er", at("5-5"), Map.of("a", "b"));
    var rows = new String[][] {
      {"XADD er 5-5 a b", "ERR The ID specified in XADD is equal or smaller than the target stream top item"},
      {"XADD er 0-0 a b", "ERR The ID specified in XADD must be greater than 0-0"},
      {"XADD er abc a b", "ERR Invalid stream ID specified as stream command argument"},
      {"XADD er * a", "ERR wrong number of arguments for 'xadd' command"},
      {"XRANGE er - + COUNT x", "ERR value is not an integer or out of range"},
      {"XREAD BLOCK -1 STREAMS er $", "ERR timeout is negative"},
      {"XREADGROUP GROUP g c STREAMS er >",
          "NOGROUP No such key 'er' or consumer group 'g' in XREADGROUP with GROUP option"},
      {"XPENDING er g", "NOGROUP No such key 'er' or consumer group 'g'"},
      {"XGROUP CREATE nothing g 0",
          "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM "
              + "option to create an empty stream automatically."},
      {"XGROUP NOSUCH er", "ERR unknown subcommand 'NOSUCH'. Try XGROUP HELP."},
      {"XTRIM er MAXLEN -1", "ERR The MAXLEN argument must be >= 0."},
      {"NOSUCHCOMMAND a b", "ERR unknown command 'NOSUCHCOMMAND', with args beginning with: 'a' 'b' "},
    };
    for (var row : rows) {
      var words = row[0].split(" ");
      equal(Support.errorOf(() -> raw(words)), row[1], row[0]);
    }
    equal(r.xlen("er"), 1L, "nothing was added");
  }

  private void keys() {
    r.flushAll();
    for (var name : List.of("orders:1", "orders:2", "events:1")) add(r, name, 0);
    equal(r.dbSize(), 3L, "DBSIZE");
    equal(r.exists("orders:1", "events:1", "nothing", "orders:1"), 3L, "EXISTS");
    equal(r.type("orders:1") + " " + r.type("nothing"), "stream none", "TYPE");
    equal(new TreeSet<>(r.keys("orders:*")).toString(), "[orders:1, orders:2]", "KEYS");
    equal(new TreeSet<>(r.keys("?????s:[13]")).toString(), "[events:1, orders:1]", "KEYS with a class");
    var found = new TreeSet<String>();
    r.scanIteration(1, "*:1", "stream").collect(found);
    equal(found.toString(), "[events:1, orders:1]", "SCAN");
    found.clear();
    r.scanIteration(10, "*", "string").collect(found);
    equal(found.toString(), "[]", "SCAN of another type");
    equal(r.del("orders:1", "nothing"), 1L, "DEL");
    equal(r.unlink("orders:2"), 1L, "UNLINK");
    equal(r.keys("*").toString(), "[events:1]", "what is left");
    equal(r.flushDB(), "OK", "FLUSHDB");
    equal(r.keys("*").toString(), "[]", "KEYS after FLUSHDB");
  }

  private static byte[] bytes(int count, int below) {
    var made = new byte[count];
    for (int n = 0; n < count; n++) made[n] = (byte) (n % below);
    return made;
  }

  private void idsAndBytes() {
    equal(r.xadd("ib", at("7-*"), Map.of("a", "b")).toString(), "7-0", "a partial id");
    equal(r.xadd("ib", at("7-*"), Map.of("a", "b")).toString(), "7-1", "the next of it");
    equal(r.xadd("ib", at("8"), Map.of("a", "b")).toString(), "8-0", "an id without its second part");
    equal(r.xadd("nothing", XAddParams.xAddParams().noMkStream(), Map.of("a", "b")), null, "NOMKSTREAM");
    equal(r.exists("nothing"), false, "no stream came of it");
    var key = SafeEncoder.encode("ib");
    Map<byte[], byte[]> fields = new LinkedHashMap<>();
    fields.put(new byte[] {-1, 0, 'r'}, bytes(256, 256));
    fields.put(SafeEncoder.encode("empty"), new byte[0]);
    fields.put(SafeEncoder.encode("grüße"), SafeEncoder.encode("日本語🌊"));
    fields.put(SafeEncoder.encode("large"), bytes(300_000, 251));
    var id = r.xadd(key, XAddParams.xAddParams(), fields);
    var entry = (List<?>) r.xrange(key, id, id).get(0);
    Support.holds(Arrays.equals((byte[]) entry.get(0), id), "its id");
    var got = (List<?>) entry.get(1);
    equal(got.size(), 8, "names and values");
    int place = 0;
    for (var field : fields.entrySet()) {
      Support.holds(Arrays.equals((byte[]) got.get(place++), field.getKey()), "a name comes back");
      Support.holds(Arrays.equals((byte[]) got.get(place++), field.getValue()), "a value comes back");
    }
    // Jedis makes a map of the fields.
    raw("XADD", "ib-twice", "1-1", "f", "1", "f", "2", "f", "1");
    var twice = raw("XRANGE", "ib-twice", "-", "+");
    equal(twice.toString(), "[[1-1, [f, 1, f, 2, f, 1]]]", "repeated fields keep their order");
  }

  private void anyDoor() throws Exception {
    var doors = List.of(setting.connect(0), setting.connect(1), setting.connect(2));
    List<StreamEntryID> made = new ArrayList<>();
    for (int n = 0; n < 60; n++) {
      made.add(add(doors.get(n % 3), "ad", n));
      var newest = texts(doors.get((n + 1) % 3).xrevrange("ad", "+", "-", 1));
      equal(newest, entries(n, made.get(n)), "the newest entry at the next door");
      equal(doors.get((n + 2) % 3).xlen("ad"), n + 1L, "XLEN at the one after");
    }
    r.xgroupCreate("ad", "g", ZERO, false);
    for (int n = 0; n < 6; n++) {
      var found = of("ad", doors.get(n % 3).xreadGroupAsMap("g", "c", count(1), Map.of("ad", NEW)));
      equal(texts(found), entries(n, made.get(n)), "delivered in order, each once");
      equal(doors.get((n + 1) % 3).xpending("ad", "g").getTotal(), 1L, "XPENDING at the next door");
      equal(doors.get((n + 2) % 3).xack("ad", "g", made.get(n)), 1L, "XACK at the one after");
    }
    for (int n = 0; n < 3; n++) {
      var waiting = blocked(doors.get(n), 4_000, "ad-wake");
      waitBlocked(doors.get(n), 1);
      var id = add(doors.get((n + 1) % 3), "ad-wake", n);
      equal(texts(of("ad-wake", Support.wait(waiting))), entries(n, id), "a reader at one door, woken by another");
    }
    equal(doors.get(1).flushAll(), "OK", "FLUSHALL");
    for (var door : doors) {
      equal(door.dbSize(), 0L, "DBSIZE at every door");
      door.close();
    }
  }
}
