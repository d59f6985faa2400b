// Starts the service and stops it in order: first no more requests, then no more entries, then the connections.
import { createApp } from './src/app.js';
import { config } from './src/config.js';
import { Connection } from './src/connection.js';
import { Consumers } from './src/consumers.js';

const connection = new Connection(config.redisUrls, config);
const consumers = new Consumers(config);
await consumers.start();

const server = createApp(connection, consumers, config).listen(config.port, (error) => {
  if (error) throw error;
  console.log(`orders-http ${config.instance} listens at port ${server.address().port}`);
});

async function stop(signal) {
  console.log(`${signal}: stopping`);
  setTimeout(() => process.exit(1), config.stopMs).unref();
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeIdleConnections();
  await closed;
  await consumers.stop();
  await connection.close();
  console.log('stopped');
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
