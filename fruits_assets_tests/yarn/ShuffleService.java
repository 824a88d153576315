package fruits;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.yarn.server.api.ApplicationInitializationContext;
import org.apache.hadoop.yarn.server.api.ApplicationTerminationContext;
import org.apache.hadoop.yarn.server.api.AuxiliaryService;
import org.apache.spark.network.TransportContext;
import org.apache.spark.network.crypto.AuthServerBootstrap;
import org.apache.spark.network.sasl.ShuffleSecretManager;
import org.apache.spark.network.server.TransportServer;
import org.apache.spark.network.server.TransportServerBootstrap;
import org.apache.spark.network.shuffle.ExternalBlockHandler;
import org.apache.spark.network.util.ConfigProvider;
import org.apache.spark.network.util.TransportConf;

/**
 * Spark's external shuffle service in a NodeManager: it keeps an executor's blocks when that is gone.
 *
 * <p>Spark's own YarnShuffleService is not on Maven Central. This one starts the same server of
 * Spark's; it keeps nothing over a restart of the NodeManager, and has no metrics.
 */
public final class ShuffleService extends AuxiliaryService {
  private ShuffleSecretManager secrets;
  private ExternalBlockHandler blocks;
  private TransportServer server;

  public ShuffleService() {
    super("spark_shuffle");
  }

  @Override
  protected void serviceInit(Configuration hadoop) throws Exception {
    super.serviceInit(hadoop);
    TransportConf settings = new TransportConf("shuffle", new Settings(hadoop));
    blocks = new ExternalBlockHandler(settings, null);
    List<TransportServerBootstrap> guards = List.of();
    if (hadoop.getBoolean("spark.authenticate", false)) {
      secrets = new ShuffleSecretManager();
      guards = List.of(new AuthServerBootstrap(settings, secrets));
    }
    String address = hadoop.get("yarn.nodemanager.hostname");
    int port = hadoop.getInt("spark.shuffle.service.port", 7337);
    server = new TransportContext(settings, blocks, true).createServer(address, port, guards);
  }

  @Override
  public void initializeApplication(ApplicationInitializationContext started) {
    if (secrets != null) {
      String id = started.getApplicationId().toString();
      secrets.registerApp(id, started.getApplicationDataForService());
    }
  }

  @Override
  public void stopApplication(ApplicationTerminationContext ended) {
    String id = ended.getApplicationId().toString();
    if (secrets != null) {
      secrets.unregisterApp(id);
    }
    blocks.applicationRemoved(id, false);
  }

  @Override
  public ByteBuffer getMetaData() {
    return ByteBuffer.allocate(0);
  }

  @Override
  protected void serviceStop() throws Exception {
    if (server != null) {
      server.close();
    }
    super.serviceStop();
  }

  /** Hadoop's configuration, as Spark reads settings. */
  private static final class Settings extends ConfigProvider {
    private final Configuration hadoop;

    Settings(Configuration hadoop) {
      this.hadoop = hadoop;
    }

    @Override
    public String get(String name) {
      String value = hadoop.get(name);
      if (value == null) {
        throw new NoSuchElementException(name);
      }
      return value;
    }

    @Override
    public Iterable<Map.Entry<String, String>> getAll() {
      return hadoop;
    }
  }
}
