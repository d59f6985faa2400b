// The background: consumers of the group, and what takes over the entries of those that failed or died.
import { setTimeout as sleep } from 'node:timers/promises';
import { Connection } from './connection.js';
import { orderHandler } from './orders.js';
import { alerts } from './recipes/alerts.js';
import { moveToDeadLetters } from './recipes/dead-letters.js';
import { forget, settle } from './recipes/idempotent.js';

export class Consumers {
  counts = { handled: 0, repeated: 0, failed: 0, reclaimed: 0, dead: 0 };
  #config;
  #handle;
  #stopping = new AbortController();
  #running = [];

  constructor(config) {
    this.#config = config;
    this.#handle = orderHandler(config);
  }

  async start() {
    const connection = this.#connection();
    await this.#createGroup(connection);
    await connection.close();
    const { consumers, instance } = this.#config;
    for (let n = 1; n <= consumers; n += 1) this.#running.push(this.#loop((c) => this.#consume(c, `${instance}:${n}`)));
    this.#running.push(this.#loop((c) => this.#lookAfter(c, `${instance}:reclaim`)));
  }

  // What was delivered is finished, nothing more is taken.
  async stop() {
    this.#stopping.abort();
    await Promise.all(this.#running);
  }

  #connection() {
    return new Connection(this.#config.redisUrls, this.#config);
  }

  // Every loop has a connection of its own: a blocked read holds up what comes after it, and so does WATCH.
  async #loop(round) {
    const connection = this.#connection();
    while (!this.#stopping.signal.aborted) {
      try {
        await round(connection);
      } catch (error) {
        console.error(`${error.message}; going on`);
        if (error.message.startsWith('NOGROUP')) await this.#createGroup(connection).catch(() => {});
        await this.#pause(1_000);
      }
    }
    await connection.close();
  }

  async #pause(milliseconds) {
    await sleep(milliseconds, undefined, { signal: this.#stopping.signal }).catch(() => {});
  }

  async #createGroup(connection) {
    const { stream, group } = this.#config;
    try {
      await connection.run((redis) => redis.xGroupCreate(stream, group, '0', { MKSTREAM: true }));
    } catch (error) {
      if (!error.message.startsWith('BUSYGROUP')) throw error;
    }
  }

  async #consume(connection, consumer) {
    const { stream, group } = this.#config;
    const reply = await connection.run((redis) =>
      redis.xReadGroup(group, consumer, { key: stream, id: '>' }, { COUNT: 10, BLOCK: 2_000 }),
    );
    for (const { messages } of reply ?? []) {
      for (const entry of messages) await this.#work(connection, entry);
    }
  }

  async #work(connection, { id, message }) {
    let order;
    let outcome;
    try {
      order = JSON.parse(message.data);
      outcome = await this.#handle(order);
    } catch (error) {
      // Not acknowledged, so it stays pending and comes again.
      this.counts.failed += 1;
      console.error(`order ${order?.orderId ?? id}: ${error.message}`);
      return;
    }
    const fields = { orderId: order.orderId, entry: id, total: `${outcome.total}`, by: this.#config.instance };
    const first = await settle(connection, this.#config, id, order.orderId, this.#config.confirmed, fields);
    this.counts[first ? 'handled' : 'repeated'] += 1;
  }

  async #lookAfter(connection, consumer) {
    const { stream, group, reclaimEveryMs, reclaimIdleMs } = this.#config;
    await this.#pause(reclaimEveryMs);
    if (this.#stopping.signal.aborted) return;
    this.counts.dead += await moveToDeadLetters(connection, this.#config);
    let cursor = '0-0';
    do {
      const reply = await connection.run((redis) =>
        redis.xAutoClaim(stream, group, consumer, reclaimIdleMs, cursor, { COUNT: 100 }),
      );
      cursor = reply.nextId;
      for (const entry of reply.messages.filter(Boolean)) {
        this.counts.reclaimed += 1;
        await this.#work(connection, entry);
      }
    } while (cursor !== '0-0' && !this.#stopping.signal.aborted);
    for (const alert of await alerts(connection, this.#config)) console.error(`ALERT ${JSON.stringify(alert)}`);
    await forget(connection, this.#config);
  }
}
