// The HTTP side: orders go into the stream, and the rest shows what is in it.
import { randomUUID } from 'node:crypto';
import express from 'express';
import { ErrorReply } from 'redis';
import { askAnother } from './connection.js';
import { complaint } from './orders.js';
import { alerts } from './recipes/alerts.js';

function count(query, most = 1_000) {
  const asked = query.count === undefined ? 10 : Number(query.count);
  return Number.isInteger(asked) && 1 <= asked && asked <= most ? asked : undefined;
}

function statusOf(error) {
  if (error.status) return error.status; // express's own
  // No node answered in time; whether the order is in the stream is open, and the client may repeat the request.
  if (askAnother(error)) return 503;
  // A reply about the request, as for a malformed id.
  return error instanceof ErrorReply ? 422 : 500;
}

// What somebody else put into the stream may be no JSON, and is shown as it is.
function view({ id, message }) {
  try {
    return { id, ...message, data: JSON.parse(message.data) };
  } catch {
    return { id, ...message };
  }
}

export function createApp(connection, consumers, config) {
  const { stream, group, dead } = config;
  const app = express();
  app.use(express.json({ limit: '100kb' }));

  app.post('/orders', async (request, response) => {
    const wrong = complaint(request.body);
    if (wrong) return response.status(400).json({ error: wrong });
    // The id of the order is made here, or by the client: who repeats a request repeats the id, and the order is handled
    // once (recipes/idempotent.js), however often it stands in the stream.
    const order = { orderId: randomUUID(), ...request.body, createdAt: new Date().toISOString() };
    const trim = { strategy: 'MAXLEN', strategyModifier: '~', threshold: config.streamMaxLength };
    const fields = { data: JSON.stringify(order) };
    const messageId = await connection.run((redis) => redis.xAdd(stream, '*', fields, { TRIM: trim }));
    response.status(201).json({ orderId: order.orderId, messageId });
  });

  app.get('/orders/history', async ({ query }, response) => {
    const COUNT = count(query);
    if (!COUNT) return response.status(400).json({ error: 'count must be a number from 1 to 1000' });
    const { start = '-', end = '+', order } = query;
    const entries = await connection.run((redis) =>
      order === 'desc' ? redis.xRevRange(stream, end, start, { COUNT }) : redis.xRange(stream, start, end, { COUNT }),
    );
    response.json({ count: entries.length, orders: entries.map(view) });
  });

  app.get('/orders/pending', async ({ query }, response) => {
    const most = count(query);
    if (!most) return response.status(400).json({ error: 'count must be a number from 1 to 1000' });
    const [summary, rows] = await connection.run((redis) =>
      Promise.all([redis.xPending(stream, group), redis.xPendingRange(stream, group, '-', '+', most)]),
    );
    response.json({ ...summary, consumers: summary.consumers ?? [], orders: rows });
  });

  app.get('/orders/dead', async ({ query }, response) => {
    const COUNT = count(query);
    if (!COUNT) return response.status(400).json({ error: 'count must be a number from 1 to 1000' });
    const entries = await connection.run((redis) => redis.xRange(dead, '-', '+', { COUNT }));
    response.json({ count: entries.length, orders: entries.map(view) });
  });

  app.get('/stream/info', async (_, response) => {
    const [info, groups, workers] = await connection.run((redis) =>
      Promise.all([redis.xInfoStream(stream), redis.xInfoGroups(stream), redis.xInfoConsumers(stream, group)]),
    );
    response.json({ stream: info, groups, consumers: workers });
  });

  app.get('/alerts', async (_, response) => {
    response.json({ alerts: await alerts(connection, config) });
  });

  app.get('/health', (_, response) => {
    response.json({ instance: config.instance, ...consumers.counts });
  });

  app.use((error, request, response, _next) => {
    response.status(statusOf(error)).json({ error: error.message });
  });
  return app;
}
