import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.XAddParams;
import redis.clients.jedis.params.XAutoClaimParams;
import redis.clients.jedis.params.XReadGroupParams;
import redis.clients.jedis.resps.StreamEntry;
import redis.clients.jedis.resps.StreamGroupInfo;

/**
 * Producers and consumers of two groups while the leader dies. Jedis sends again what a connection was lost under;
 * errors that say "not now" it hands on, so the program sends those again.
 */
class Failover {
  private static final String STREAM = "failover:stream";
  private static final List<String> GROUPS = List.of("billing", "shipping");
  /** Until a program must have come through the leader's end. */
  private static final long FAILOVER_MS = 60_000;
  /** How many numbers a producer goes on for after the leader is back. */
  private static final int APPENDS_AFTER = 100;
  private static final String NOT_NOW = "(TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|MASTERDOWN|UNKNOWN|UNBLOCKED) .*";

  private record Span(long began, long ended) {}

  private final Main.Setting setting;
  private final long deadline = System.currentTimeMillis() + FAILOVER_MS;
  private final Map<Integer, StreamEntryID> acknowledged = new ConcurrentHashMap<>();
  private final Map<Integer, Span> spans = new ConcurrentHashMap<>();
  private final Map<String, Set<StreamEntryID>> handled = new HashMap<>();
  private volatile boolean producing = true;

  Failover(Main.Setting setting) {
    this.setting = setting;
    for (var group : GROUPS) handled.put(group, ConcurrentHashMap.newKeySet());
  }

  void run(Support.Report report) throws Exception {
    var setup = setting.patient(setting.addresses().size() - 1);
    setup.flushAll();
    List<Future<?>> consumers = new ArrayList<>();
    for (var group : GROUPS) {
      setup.xgroupCreate(STREAM, group, new StreamEntryID(), true);
      for (int turn : List.of(0, 2)) consumers.add(Support.inBackground(() -> consume(group, turn)));
    }
    List<Future<?>> producers = new ArrayList<>();
    for (int turn : List.of(0, 1)) producers.add(Support.inBackground(() -> produce(turn)));
    for (var producer : producers) producer.get();
    producing = false;
    for (var consumer : consumers) consumer.get();
    verify(report, setup.xrange(STREAM, "-", "+"), setup.xinfoGroups(STREAM));
  }

  private static <T> T again(Callable<T> call) throws Exception {
    for (;;) {
      try {
        return call.call();
      } catch (JedisDataException error) {
        if (!error.getMessage().matches(NOT_NOW)) throw error;
        Thread.sleep(50);
      }
    }
  }

  private Void produce(int turn) throws Exception {
    try (RedisClient client = setting.patient(turn)) {
      int last = Integer.MAX_VALUE;
      for (int number = turn; number < last; number += 2) {
        Support.holds(System.currentTimeMillis() < deadline, "producer " + turn + " came through");
        var fields = Map.of("n", "" + number);
        long began = System.currentTimeMillis();
        var id = again(() -> client.xadd(STREAM, XAddParams.xAddParams(), fields));
        acknowledged.put(number, id);
        spans.put(number, new Span(began, System.currentTimeMillis()));
        if (acknowledged.size() % 20 == 0) setting.faults().progress(acknowledged.size());
        if (last == Integer.MAX_VALUE && setting.faults().at("restored") > 0) last = number + APPENDS_AFTER;
        Thread.sleep(3);
      }
    }
    return null;
  }

  private Void consume(String group, int turn) throws Exception {
    // Some are at the leader's door, and some wait through its end at another.
    var options = XReadGroupParams.xReadGroupParams().count(10).block(turn == 0 ? 300 : 2_000);
    var streams = Map.of(STREAM, StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY);
    var claim = XAutoClaimParams.xAutoClaimParams().count(100);
    var consumer = "consumer-" + turn;
    try (RedisClient client = setting.patient(turn)) {
      for (;;) {
        Support.holds(System.currentTimeMillis() < deadline + 5_000, consumer + " of " + group + " came through");
        var found = again(() -> client.xreadGroupAsMap(group, consumer, options, streams));
        if (found != null && !found.isEmpty()) {
          handle(client, group, found.get(STREAM));
          continue;
        }
        // Entries whose delivery was lost on its way to a consumer, this one or another.
        var lost = again(() -> client.xautoclaim(STREAM, group, consumer, 1_000, new StreamEntryID(), claim));
        handle(client, group, lost.getValue());
        if (!producing && again(() -> client.xpending(STREAM, group)).getTotal() == 0) return null;
      }
    }
  }

  private void handle(RedisClient client, String group, List<StreamEntry> entries) throws Exception {
    if (entries.isEmpty()) return;
    var ids = entries.stream().map(StreamEntry::getID).toArray(StreamEntryID[]::new);
    Collections.addAll(handled.get(group), ids);
    again(() -> client.xack(STREAM, group, ids));
  }

  private void verify(Support.Report report, List<StreamEntry> entries, List<StreamGroupInfo> left) throws Exception {
    long killed = setting.faults().at("killed");
    long restored = setting.faults().at("restored");
    Map<StreamEntryID, Integer> numbers = new HashMap<>();
    Map<Integer, Integer> times = new HashMap<>();
    for (var entry : entries) {
      int number = Integer.parseInt(entry.getFields().get("n"));
      numbers.put(entry.getID(), number);
      times.merge(number, 1, Integer::sum);
    }

    report.run("failover-happened", () -> {
      Support.holds(killed > 0 && restored > 0, "the leader was killed and started again");
      var began = spans.values().stream().mapToLong(Span::began).summaryStatistics();
      Support.holds(began.getMin() < killed && restored < began.getMax(), "appends began before and after it");
    });
    report.run("failover-none-lost", () -> {
      var lost = acknowledged.keySet().stream().filter(n -> !n.equals(numbers.get(acknowledged.get(n)))).toList();
      Support.equal(lost, List.of(), "acknowledged numbers that are not at their id");
      var inOrder = new TreeMap<>(acknowledged);
      inOrder.forEach((number, id) -> {
        var before = acknowledged.get(number - 2);
        Support.holds(before == null || before.compareTo(id) < 0, "what a producer appends later has a higher id");
      });
    });
    report.run("failover-doubled", () -> {
      Support.equal(times.keySet(), new HashSet<>(acknowledged.keySet()), "the numbers in the stream");
      var doubled = times.keySet().stream().filter(number -> times.get(number) > 1).toList();
      for (int number : doubled) {
        var span = spans.get(number);
        var near = span.began <= restored + 5_000 && killed - 100 <= span.ended;
        Support.holds(near, number + " was doubled far from the fault");
      }
      System.out.printf("     %d acknowledged, %d in the stream, %d doubled%n",
          acknowledged.size(), entries.size(), doubled.size());
      // Even numbers went by way of the door that ended, odd ones by way of another, if there is one.
      for (int turn : List.of(0, 1)) {
        var longest = spans.entrySet().stream().filter(one -> one.getKey() % 2 == turn)
            .mapToLong(one -> one.getValue().ended - one.getValue().began).max().orElse(0);
        System.out.printf("       by way of %s: %d doubled, the longest append took %d ms%n",
            turn == 0 ? "the leader's door" : "another door",
            doubled.stream().filter(number -> number % 2 == turn).count(), longest);
      }
    });
    report.run("failover-groups", () -> {
      Support.equal(left.stream().map(StreamGroupInfo::getName).toList(), GROUPS, "groups");
      for (var group : left) {
        var missing = entries.stream().map(StreamEntry::getID).filter(id -> !handled.get(group.getName()).contains(id));
        Support.equal(missing.count(), 0L, "ids that group " + group.getName() + " has not handled");
        var rest = List.of(group.getPending(), group.getGroupInfo().get("lag"));
        Support.equal(rest, List.of(0L, 0L), "what is left for group " + group.getName());
      }
    });
  }
}
