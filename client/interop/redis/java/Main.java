import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.RedisProtocol;
import redis.clients.jedis.executors.RetryableCommandExecutor;
import redis.clients.jedis.providers.PooledConnectionProvider;

/**
 * Jedis through every case of cases.txt and through the leader's end. Started by run.sh one folder up;
 * python/support.py there says more about what a program is given and what it reports.
 */
public class Main {
  /** What run.sh asks for. */
  record Setting(List<HostAndPort> addresses, int protocol, String part, Support.Faults faults) {
    HostAndPort address(int turn) {
      return addresses.get(turn % addresses.size());
    }

    DefaultJedisClientConfig.Builder config() {
      return DefaultJedisClientConfig.builder().protocol(protocol == 3 ? RedisProtocol.RESP3 : RedisProtocol.RESP2);
    }

    RedisClient connect(int turn) {
      return RedisClient.builder().hostAndPort(address(turn)).clientConfig(config().build()).build();
    }

    /**
     * The settings a program has for a server that may be away for a while: a socket's timeout above what a door may
     * take for an answer (with the 2 s that Jedis has by itself, an XADD that waits for a new leader is sent twice),
     * and Jedis's own retries, which are only there for those who ask. They pause the longer, the longer the server has
     * been away, and the shorter, the more time they have in all.
     */
    RedisClient patient(int turn) {
      var config = config().socketTimeoutMillis(6_000).build();
      var provider = new PooledConnectionProvider(address(turn), config);
      var executor = new RetryableCommandExecutor(provider, 100, Duration.ofMinutes(2));
      return RedisClient.builder().clientConfig(config).connectionProvider(provider).commandExecutor(executor).build();
    }
  }

  public static void main(String[] words) throws Exception {
    Map<String, String> given = IntStream.range(0, words.length / 2).boxed()
        .collect(Collectors.toMap(at -> words[2 * at], at -> words[2 * at + 1]));
    var addresses = List.of(given.get("--addresses").split(",")).stream().map(HostAndPort::from).toList();
    var faults = new Support.Faults(given.get("--fault-dir"));
    var setting = new Setting(addresses, Integer.parseInt(given.get("--protocol")), given.get("--part"), faults);
    var report = new Support.Report("Jedis", setting);
    if (setting.part().equals("failover")) {
      report.run(null, () -> new Failover(setting).run(report));
    } else {
      new Cases(setting).run(report);
    }
    report.end();
  }
}
