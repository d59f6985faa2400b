// Every setting, from the environment.
import { hostname } from 'node:os';

function number(name, otherwise) {
  const text = process.env[name];
  if (text === undefined || text === '') return otherwise;
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a number from 0 on, not '${text}'`);
  return value;
}

export const config = {
  port: number('PORT', 3000),
  // One address, or several with commas: any node of Millstream will do, and the next one if it does not.
  redisUrls: (process.env.REDIS_URL || 'redis://127.0.0.1:6379').split(',').map((url) => url.trim()),
  // How long a call goes on from node to node before it fails.
  retryMs: number('RETRY_MS', 15_000),

  stream: 'orders:stream',
  confirmed: 'orders:confirmed',
  dead: 'orders:dead',
  group: 'order-workers',
  // Approximately how many orders the history keeps. Longer than any lag: what is trimmed is not delivered.
  streamMaxLength: number('STREAM_MAXLEN', 100_000),

  // Consumers need names of their own, across all instances and starts.
  instance: process.env.INSTANCE || `${hostname()}-${process.pid}`,
  consumers: number('CONSUMERS', 2),
  // The part of orders whose first handling fails, as a payment service might. A seed makes it the same in every run.
  failureRate: number('FAILURE_RATE', 0.1),
  failureSeed: number('FAILURE_SEED', Date.now()),
  // How often entries are taken over that nobody has acknowledged, and after which time.
  reclaimEveryMs: number('RECLAIM_INTERVAL_MS', 30_000),
  reclaimIdleMs: number('RECLAIM_IDLE_MS', 30_000),
  // After so many deliveries an order goes to the dead letters.
  maxDeliveries: number('MAX_DELIVERIES', 5),
  // How long it is remembered that an order is done.
  rememberMs: number('REMEMBER_MS', 7 * 24 * 3_600_000),

  alertLag: number('ALERT_LAG', 1_000),
  alertPendingMs: number('ALERT_PENDING_MS', 120_000),

  stopMs: number('STOP_MS', 20_000),
};
