// What the programs of this folder share: cases and their outcome, the words with run.sh about the leader's end, and the
// account of what was acknowledged. The same as python/support.py, where more is said.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

export { sleep };

const FAILOVER_SECONDS = 60;
const APPENDS_AFTER = 100;
export const STREAM = 'failover:stream';
export const GROUPS = ['billing', 'shipping'];

export function options(more = {}) {
  const { values } = parseArgs({
    options: {
      addresses: { type: 'string' },
      protocol: { type: 'string' },
      part: { type: 'string' },
      'fault-dir': { type: 'string' },
      ...more,
    },
  });
  const addresses = values.addresses.split(',').map((address) => {
    const [host, port] = address.split(':');
    return { host, port: Number(port) };
  });
  return {
    ...values,
    protocol: Number(values.protocol),
    addresses,
    address: (turn) => addresses.at(turn % addresses.length),
    faults: values['fault-dir'] && new Faults(values['fault-dir']),
  };
}

// deepStrictEqual, but for prototypes: clients make plain objects of several kinds.
export function equal(got, expected, what) {
  assert.deepStrictEqual(plain(got), plain(expected), what && new Unequal(what, got, expected));
}

class Unequal extends Error {
  constructor(what, got, expected) {
    super(`${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
  }
}

function plain(value) {
  if (value === undefined || value === null || typeof value !== 'object' || Buffer.isBuffer(value))
    return value ?? null;
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, plain(inner)]));
}

export function holds(condition, what) {
  if (!condition) throw new Error(what);
}

// The fields that `expected` names, so that newer servers may say more.
export function pick(reply, expected) {
  return Object.fromEntries(Object.keys(expected).map((name) => [name, reply[name]]));
}

export function pairs(list) {
  const found = {};
  for (let at = 0; at < list.length; at += 2) found[list[at]] = list[at + 1];
  return found;
}

export async function errorOf(promise) {
  const outcome = await promise.then(
    (reply) => ({ reply }),
    (error) => ({ error }),
  );
  holds(outcome.error, `no error, but ${JSON.stringify(outcome.reply)}`);
  return outcome.error.message;
}

function idOf(text) {
  const [ms, seq] = text.split('-').map(BigInt);
  return (ms << 64n) | seq;
}

export async function within(milliseconds, what, test) {
  const deadline = Date.now() + milliseconds;
  for (;;) {
    const found = await test();
    if (found) return found;
    holds(Date.now() < deadline, `within ${milliseconds} ms: ${what}`);
    await sleep(10);
  }
}

export function order(number, status = 'created') {
  const customer = ['Zoë', 'Björn', '李雷', "O'Neil"][number % 4];
  return JSON.stringify({ orderId: `order-${number}`, customer, total: number * 10 + 0.5, status });
}

export class Report {
  passed = 0;
  failed = 0;

  constructor(client, version, protocol, part) {
    Object.assign(this, { client, version, protocol, part });
  }

  // Runs a case; without a name, what reports cases of its own.
  async run(name, work) {
    try {
      await work();
      if (!name) return;
      this.passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      this.failed += 1;
      const where = (error.stack ?? '')
        .split('\n')
        .filter((line) => line.includes('.mjs'))
        .slice(0, 3);
      const lines = where.map((line) => line.replace(/.*\/([^/]+:\d+):\d+\)?$/, '$1')).join(' < ');
      console.log(`FAILED ${name ?? this.part}: ${error.name}: ${error.message} (${lines})`);
    }
  }

  end() {
    const { client, version, protocol, part, passed, failed } = this;
    console.log(`result|${client}|${version}|RESP${protocol}|${part}|${passed}|${failed}`);
    process.exit(failed === 0 ? 0 : 1);
  }
}

export class Faults {
  constructor(folder) {
    this.folder = folder;
  }

  progress(count) {
    writeFileSync(join(this.folder, 'progress'), `${count}`);
  }

  at(name) {
    const file = join(this.folder, name);
    return existsSync(file) ? Number(readFileSync(file, 'utf8')) : undefined;
  }
}

// Which numbers were appended, under which ids, and which of the calls may have been sent twice.
class Account {
  acknowledged = new Map();
  spans = new Map();
  handled = Object.fromEntries(GROUPS.map((group) => [group, new Set()]));
  restoredFrom = {};
  deadline = Date.now() + FAILOVER_SECONDS * 1000;

  constructor(faults) {
    this.faults = faults;
  }

  appended(producer, number, id, began) {
    holds(!this.acknowledged.has(number), `${number} is acknowledged once`);
    this.acknowledged.set(number, id);
    this.spans.set(number, [began, Date.now()]);
    if (this.acknowledged.size % 20 === 0) this.faults.progress(this.acknowledged.size);
    if (this.faults.at('restored')) this.restoredFrom[producer] ??= number;
  }

  producerDone(producer, number) {
    holds(Date.now() < this.deadline, `${producer} came through within ${FAILOVER_SECONDS} s`);
    return this.restoredFrom[producer] + APPENDS_AFTER <= number;
  }

  async verify(report, entries, groups) {
    const killed = this.faults.at('killed');
    const restored = this.faults.at('restored');
    await report.run('failover-happened', async () => {
      holds(killed && restored, 'the leader was killed and started again');
      const began = [...this.spans.values()].map(([from]) => from);
      holds(Math.min(...began) < killed && restored < Math.max(...began), 'appends began before and after it');
    });
    await report.run('failover-none-lost', async () => {
      const there = new Map(entries);
      const lost = [...this.acknowledged].filter(([number, id]) => there.get(id) !== number);
      equal(lost, [], 'acknowledged numbers that are not at their id');
      for (const turn of [0, 1]) {
        const numbers = [...this.acknowledged.keys()].filter((number) => number % 2 === turn).sort((a, b) => a - b);
        const ids = numbers.map((number) => idOf(this.acknowledged.get(number)));
        holds(
          ids.every((id, at) => at === 0 || ids[at - 1] < id),
          'what a producer appends later has a higher id',
        );
      }
    });
    await report.run('failover-doubled', async () => {
      const times = new Map();
      for (const [, number] of entries) times.set(number, (times.get(number) ?? 0) + 1);
      equal(
        [...times.keys()].filter((n) => !this.acknowledged.has(n)),
        [],
        'numbers that nobody has acknowledged',
      );
      const doubled = [...times].filter(([, count]) => count > 1).map(([number]) => number);
      for (const number of doubled) {
        const [began, ended] = this.spans.get(number);
        holds(began <= restored + 5000 && killed - 100 <= ended, `${number} was doubled far from the fault`);
      }
      console.log(
        `     ${this.acknowledged.size} acknowledged, ${entries.length} in the stream, ${doubled.length} doubled`,
      );
      // Even numbers went by way of the door that ended, odd ones by way of another, if there is one.
      for (const [turn, door] of ["the leader's door", 'another door'].entries()) {
        const took = [...this.spans].filter(([number]) => number % 2 === turn).map(([, [from, to]]) => to - from);
        const times = doubled.filter((number) => number % 2 === turn).length;
        console.log(`       by way of ${door}: ${times} doubled, the longest append took ${Math.max(...took)} ms`);
      }
    });
    await report.run('failover-groups', async () => {
      for (const group of GROUPS) {
        const missing = entries.filter(([id]) => !this.handled[group].has(id)).map(([id]) => id);
        equal(missing.slice(0, 5), [], `ids that group ${group} has not handled (${missing.length} in all)`);
        equal(groups[group], { pending: 0, lag: 0 }, `what is left for group ${group}`);
      }
    });
  }
}

// Producers and consumers through the leader's end. `connect(turn)` gives a client of the turn-th door with what this needs:
//   create(group), append(number) -> id, read(group, consumer, blockMs) -> [[id, number]], ack(group, ids),
//   claim(group, consumer) -> [[id, number]], pending(group), everything() -> [[id, number]], groups(), flush(), close()
// What a failed call means, and whether it is sent again, is up to the client's settings: that is what is tested.
export async function failover(report, faults, connect) {
  const setup = await connect(-1);
  await setup.flush();
  for (const group of GROUPS) await setup.create(group);
  const account = new Account(faults);
  let producing = true;

  async function produce(turn) {
    const client = await connect(turn);
    const name = `producer-${turn}`;
    for (let number = turn; !account.producerDone(name, number); number += 2) {
      const began = Date.now();
      account.appended(name, number, await client.append(number), began);
      await sleep(3);
    }
    await client.close();
  }

  async function consume(group, turn) {
    const client = await connect(turn);
    const consumer = `consumer-${turn}`;
    async function handle(entries) {
      for (const [id] of entries) account.handled[group].add(id);
      if (entries.length > 0)
        await client.ack(
          group,
          entries.map(([id]) => id),
        );
    }
    for (;;) {
      holds(Date.now() < account.deadline + 5000, `${consumer} of ${group} came through`);
      // Some are at the leader's door, and some wait through its end at another.
      const entries = await client.read(group, consumer, turn === 0 ? 300 : 2000);
      await handle(entries);
      if (entries.length > 0) continue;
      // Entries whose delivery was lost on its way to a consumer, this one or another.
      await handle(await client.claim(group, consumer));
      if (!producing && (await client.pending(group)) === 0) break;
    }
    await client.close();
  }

  const consumers = GROUPS.flatMap((group) => [0, 2].map((turn) => consume(group, turn)));
  // Whoever fails first ends the program.
  await Promise.race([Promise.all([produce(0), produce(1)]), Promise.all(consumers)]);
  producing = false;
  await Promise.all(consumers);
  await account.verify(report, await setup.everything(), await setup.groups());
  await setup.close();
}
