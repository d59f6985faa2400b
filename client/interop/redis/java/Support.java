import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** What cases and failover share: checks, the report, the words with run.sh about the leader's end. */
class Support {
  interface Work {
    void run() throws Exception;
  }

  @SuppressWarnings("serial")
  static class Failure extends RuntimeException {
    Failure(String text) {
      super(text);
    }
  }

  static void equal(Object got, Object expected, String what) {
    holds(Objects.equals(got, expected), what + ": expected " + expected + ", got " + got);
  }

  static void holds(boolean condition, String what) {
    if (!condition) throw new Failure(what);
  }

  /** The text of the error that a call must end with. */
  static String errorOf(Callable<?> call) {
    Object reply;
    try {
      reply = call.call();
    } catch (ExecutionException wrapped) {
      return wrapped.getCause().getMessage();
    } catch (Exception error) {
      return error.getMessage();
    }
    throw new Failure("no error, but " + reply);
  }

  private static final ExecutorService threads = Executors.newCachedThreadPool(work -> {
    var thread = new Thread(work);
    thread.setDaemon(true);
    return thread;
  });

  static <T> Future<T> inBackground(Callable<T> call) {
    return threads.submit(call);
  }

  static <T> T wait(Future<T> started) throws Exception {
    return started.get(10, TimeUnit.SECONDS);
  }

  /** Counts cases, and says how they went in the form that run.sh reads. */
  static class Report {
    private final String client;
    private final Main.Setting setting;
    private int passed;
    private int failed;

    Report(String client, Main.Setting setting) {
      this.client = client;
      this.setting = setting;
    }

    /** Runs a case; without a name, what is to report cases of its own. */
    void run(String name, Work work) {
      try {
        work.run();
        if (name == null) return;
        passed++;
        System.out.println("ok " + name);
      } catch (Exception error) {
        failed++;
        var lines = Stream.of(error.getStackTrace()).filter(frame -> frame.getClassName().matches("Cases|Failover"))
            .map(frame -> frame.getFileName() + ":" + frame.getLineNumber()).limit(3).toList();
        var text = error instanceof Failure ? error.getMessage() : error.toString();
        System.out.println("FAILED " + (name == null ? setting.part() : name) + ": " + text + " " + lines);
      }
    }

    void end() throws Exception {
      var about = new Properties();
      about.load(redis.clients.jedis.Jedis.class.getResourceAsStream("pom.properties"));
      System.out.printf("result|%s|%s|RESP%d|%s|%d|%d%n",
          client, about.get("version"), setting.protocol(), setting.part(), passed, failed);
      System.exit(failed == 0 ? 0 : 1);
    }
  }

  /**
   * The folder of the words with run.sh, which kills the leader once `progress` is high enough, writes `killed`, starts
   * it again, writes `restored`; both hold the time in ms.
   */
  record Faults(String folder) {
    void progress(int count) throws Exception {
      Files.writeString(Path.of(folder, "progress"), "" + count);
    }

    /** 0 as long as there is none. */
    long at(String name) throws Exception {
      var file = Path.of(folder, name);
      return Files.exists(file) ? Long.parseLong(Files.readString(file).trim()) : 0;
    }
  }

  static String order(int number, String status) {
    var customer = new String[] {"Zoë", "Björn", "李雷", "O'Neil"}[number % 4];
    return "{\"orderId\":\"order-" + number + "\",\"customer\":\"" + customer + "\",\"total\":" + (number * 10 + 0.5)
        + ",\"status\":\"" + status + "\"}";
  }
}
