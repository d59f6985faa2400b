// Two instances of client/examples/orders-http, asked over HTTP. Plain: every route and every recipe, and one instance dies.
// Failover: the leader dies while orders come in, and every order that was answered with 201 must come to its end, once.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { equal, holds, options, Report, sleep, within } from './support.mjs';

const { addresses, example, faults, part } = options({ example: { type: 'string' } });
const { Connection } = await import(join(example, 'src/connection.js'));
const { alerts } = await import(join(example, 'src/recipes/alerts.js'));
const { forget, markOf, settle } = await import(join(example, 'src/recipes/idempotent.js'));

const STREAM = 'orders:stream';
const FAILOVER_MS = 60_000;
const ORDERS = 300;
const MAX_DELIVERIES = 4;

// Each participant begins with another node.
function urls(first) {
  const all = addresses.map(({ host, port }) => `redis://${host}:${port}`);
  return [...all.slice(first), ...all.slice(0, first)];
}

const connection = new Connection(urls(addresses.length - 1), { retryMs: 30_000 });
const redis = (work) => connection.run(work);

class Instance {
  log = [];

  static async start(name, first) {
    const instance = new Instance();
    instance.process = spawn('node', ['server.js'], {
      cwd: example,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        PORT: '0',
        INSTANCE: name,
        REDIS_URL: urls(first).join(','),
        FAILURE_RATE: '0.1',
        FAILURE_SEED: `${first + 1}`,
        MAX_DELIVERIES: `${MAX_DELIVERIES}`,
        RECLAIM_INTERVAL_MS: '200',
        RECLAIM_IDLE_MS: '700',
      },
    });
    instance.exited = once(instance.process, 'exit').then(([code, signal]) => ({ code, signal }));
    for (const output of ['stdout', 'stderr']) {
      createInterface({ input: instance.process[output] }).on('line', (line) => instance.log.push(line));
    }
    const line = await within(10_000, `${name} listens`, () =>
      instance.log.find((one) => one.includes('listens at port')),
    );
    instance.url = `http://127.0.0.1:${line.split(' ').at(-1)}`;
    return instance;
  }

  async get(path) {
    const response = await fetch(this.url + path);
    return { status: response.status, ...(await response.json()) };
  }

  async post(body) {
    const response = await fetch(`${this.url}/orders`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    return { status: response.status, ...(await response.json()) };
  }

  async stop() {
    this.process.kill('SIGTERM');
    const late = sleep(15_000).then(() => ({ code: 'still running' }));
    return Promise.race([this.exited, late]);
  }
}

const discontinued = (number) => number % 25 === 7;

function order(number) {
  const sku = discontinued(number) ? 'discontinued' : `article-${number % 10}`;
  return { orderId: `o-${number}`, customer: 'Zoë 李', items: [{ sku, price: 2.5, quantity: (number % 4) + 1 }] };
}

// What became of the orders: the outcomes by order, in the order they came.
async function outcomes() {
  const found = new Map();
  for (const outcome of ['orders:confirmed', 'orders:dead']) {
    for (const { message } of await redis((client) => client.xRange(outcome, '-', '+'))) {
      found.set(message.orderId, [...(found.get(message.orderId) ?? []), { outcome, ...message }]);
    }
  }
  return found;
}

const pendingCount = async () => (await redis((client) => client.xPending(STREAM, 'order-workers'))).pending;

// Each accepted order has one outcome, and the right one.
async function checkSettled(accepted) {
  await within(30_000, 'every accepted order is settled', async () => {
    const found = await outcomes();
    return [...accepted.keys()].every((id) => found.has(id)) && (await pendingCount()) === 0;
  });
  const found = await outcomes();
  let unlucky = 0;
  const wrong = [...accepted].filter(([id, number]) => {
    const [first, ...more] = found.get(id);
    if (more.length > 0) return true;
    if (discontinued(number)) return first.outcome !== 'orders:dead' || Number(first.deliveries) < MAX_DELIVERIES;
    if (first.outcome === 'orders:dead') {
      unlucky += 1;
      return Number(first.deliveries) < MAX_DELIVERIES;
    }
    return first.total !== `${2.5 * ((number % 4) + 1)}`;
  });
  equal(wrong.slice(0, 3), [], `orders with another outcome than one, the right one (${wrong.length})`);
  // A handler may fail as often as that by chance: one order in 10,000.
  holds(unlucky <= 3, `${unlucky} orders are dead that could have been handled`);
  return found;
}

async function plain(report) {
  const [a, b] = await Promise.all([Instance.start('a', 0), Instance.start('b', addresses.length > 1 ? 1 : 0)]);
  const accepted = new Map();
  let ids = [];

  await report.run('orders-accepted', async () => {
    for (let number = 0; number < ORDERS; number += 1) {
      // In the middle of it, one instance dies, and its clients turn to the other.
      if (number === 200) b.process.kill('SIGKILL');
      const instance = number % 2 && number < 200 ? b : a;
      const answer = await instance.post(order(number));
      equal([answer.status, answer.orderId], [201, `o-${number}`], 'POST /orders');
      accepted.set(answer.orderId, number);
      ids.push(answer.messageId);
      // An impatient client asks twice.
      if (number % 40 === 3) equal((await a.post(order(number))).status, 201, 'POST /orders once more');
    }
    const own = await a.post({ ...order(0), orderId: undefined });
    holds(own.status === 201 && /^[\da-f-]{36}$/.test(own.orderId), `an id made by the service: ${own.orderId}`);
    accepted.set(own.orderId, 0);
  });

  await report.run('orders-pending', async () => {
    const answer = await within(5_000, 'an order that is pending', async () => {
      const got = await a.get('/orders/pending?count=50');
      return got.orders.length > 0 && got;
    });
    equal(
      answer.pending,
      answer.consumers.reduce((sum, one) => sum + one.deliveriesCounter, 0),
      'the sum of pending',
    );
    const [{ id, consumer, millisecondsSinceLastDelivery, deliveriesCounter }] = answer.orders;
    holds(/^\d+-\d+$/.test(id) && /^[ab]:/.test(consumer), `a pending order: ${id} of ${consumer}`);
    holds(0 <= millisecondsSinceLastDelivery && 1 <= deliveriesCounter, 'its times and deliveries');
  });

  await report.run('orders-settled', async () => {
    const entry = await redis((client) => client.xAdd(STREAM, '*', { data: 'no order' }));
    const found = await checkSettled(accepted);
    const [broken] = await within(15_000, 'what is no order is among the dead', async () =>
      (await outcomes()).get(entry),
    );
    equal([broken.outcome, broken.data], ['orders:dead', 'no order'], 'what is no order');
    equal(
      [...found.keys()].filter((id) => id !== entry && !accepted.has(id)),
      [],
      'outcomes of orders nobody made',
    );
    const health = await a.get('/health');
    holds(health.failed > 0 && health.reclaimed > 0 && health.dead > 0, `failures: ${JSON.stringify(health)}`);
    // Only what was posted twice is met again: the outcome and its XACK are one.
    const twice = [...accepted.values()].filter((number) => number % 40 === 3).length;
    holds(health.repeated <= twice, `${health.repeated} orders were met again, and ${twice} posted twice`);
    const { length } = await redis((client) => client.xInfoStream(STREAM));
    console.log(
      `     ${accepted.size} accepted, ${length} entries, ${found.size} outcomes, ${health.failed} failures at a`,
    );
  });

  await report.run('orders-dead', async () => {
    const answer = await a.get('/orders/dead?count=100');
    const hopeless = [...accepted].filter(([, number]) => discontinued(number)).map(([id]) => id);
    const there = new Set(answer.orders.map(({ orderId }) => orderId));
    equal(
      hopeless.filter((id) => !there.has(id)),
      [],
      'discontinued articles that are not among the dead',
    );
    const one = answer.orders.find(({ orderId }) => orderId === 'o-7');
    equal([one.data.orderId, one.data.items[0].sku], ['o-7', 'discontinued'], 'a dead letter');
  });

  await report.run('orders-history', async () => {
    const first = await a.get('/orders/history?count=5');
    equal([first.status, first.count], [200, 5], 'GET /orders/history');
    equal(first.orders[0].data.orderId, 'o-0', 'the first of it');
    equal(first.orders[0].data.items, order(0).items, 'its items');
    const part1 = await a.get(`/orders/history?start=${ids[10]}&end=${ids[12]}`);
    equal(
      part1.orders.map(({ id }) => id),
      ids.slice(10, 13),
      'from start to end',
    );
    const after = await a.get(`/orders/history?count=1&start=(${ids[10]}`);
    equal(
      after.orders.map(({ id }) => id),
      [ids[11]],
      'the page after',
    );
    const newest = await a.get('/orders/history?count=1&order=desc');
    equal(newest.orders[0].id > ids.at(-1), true, 'the newest');
  });

  await report.run('orders-info', async () => {
    const { stream, groups, consumers } = await a.get('/stream/info');
    const entries = await redis((client) => client.xLen(STREAM));
    equal([stream.length, stream['entries-added'], stream['first-entry'].id], [entries, entries, ids[0]], 'the stream');
    const [{ name, lag, pending }] = groups;
    equal([groups.length, name, lag, pending], [1, 'order-workers', 0, 0], 'the group');
    const names = consumers.map((one) => one.name);
    holds(
      ['a:1', 'a:2', 'b:1', 'b:2'].every((one) => names.includes(one)),
      `the consumers: ${names}`,
    );
  });

  await report.run('orders-bad-requests', async () => {
    const bad = async (body) => (await a.post(body)).status;
    equal(await bad({ customer: 'x', items: [] }), 400, 'an order without items');
    equal(await bad({ ...order(1), orderId: 'no spaces' }), 400, 'an order with a bad id');
    equal(await bad('{"customer":'), 400, 'broken JSON');
    equal((await a.get('/orders/history?count=0')).status, 400, 'count 0');
    const malformed = await a.get('/orders/history?start=abc');
    const text = 'ERR Invalid stream ID specified as stream command argument';
    equal([malformed.status, malformed.error], [422, text], 'a malformed id');
  });

  await report.run('recipe-alerts', async () => {
    equal((await a.get('/alerts')).alerts, [], 'no alerts');
    const of = { stream: 'alerts:stream', group: 'g', alertLag: 1, alertPendingMs: 1_000 };
    await redis((client) => client.xGroupCreate(of.stream, of.group, '0', { MKSTREAM: true }));
    for (let n = 1; n <= 3; n += 1) await redis((client) => client.xAdd(of.stream, `${n}000-0`, { n: `${n}` }));
    equal(await alerts(connection, of), [{ alert: 'lag', entries: 3, limit: 1 }], 'a lag');
    await redis((client) => client.xReadGroup('g', 'c', { key: of.stream, id: '>' }));
    const [old, ...more] = await alerts(connection, of);
    equal([old.alert, old.entry, more], ['oldest-pending', '1000-0', []], 'an entry pending for long');
    holds(Math.abs(Date.now() - 1_000_000 - old.ms) < 10_000_000, 'its age');
    await redis((client) => client.xAck(of.stream, 'g', ['1000-0', '2000-0', '3000-0']));
    equal(await alerts(connection, of), [], 'none after XACK');
  });

  await report.run('recipe-idempotent', async () => {
    const of = {
      stream: 'idem:stream',
      group: 'g',
      confirmed: 'idem:confirmed',
      dead: 'idem:dead',
      rememberMs: 60_000,
    };
    await redis((client) => client.xGroupCreate(of.stream, of.group, '0', { MKSTREAM: true }));
    // The same order twice in the stream, and four handlers that all think it is theirs.
    const twice = [];
    for (let n = 0; n < 2; n += 1)
      twice.push(await redis((client) => client.xAdd(of.stream, '*', { order: 'idem-1' })));
    await redis((client) => client.xReadGroup('g', 'c', { key: of.stream, id: '>' }));
    const handlers = Array.from({ length: 4 }, (_, n) => new Connection(urls(n % addresses.length)));
    const firsts = await Promise.all(
      handlers.map((own, n) => settle(own, of, twice[n % 2], 'idem-1', of.confirmed, { orderId: 'idem-1' })),
    );
    equal(firsts.filter(Boolean).length, 1, 'how many were first');
    equal(await redis((client) => client.xLen(of.confirmed)), 1, 'outcomes');
    equal((await redis((client) => client.xPending(of.stream, 'g'))).pending, 0, 'pending entries');
    await Promise.all(handlers.map((own) => own.close()));
    equal(await forget(connection, of), 0, 'nothing is old enough to forget');
    equal(await redis((client) => client.exists(markOf('idem-1'))), 1, 'the mark');
    await sleep(5);
    equal(await forget(connection, { ...of, rememberMs: 0 }), 1, 'forgotten');
    equal(await redis((client) => client.exists(markOf('idem-1'))), 0, 'the mark after that');
    equal(await redis((client) => client.xLen(of.confirmed)), 0, 'its outcome after that');
  });

  await report.run('orders-stop', async () => {
    equal(await a.stop(), { code: 0, signal: null }, 'the end of a');
    equal(a.log.at(-1), 'stopped', 'its last words');
    equal((await b.exited).signal, 'SIGKILL', 'the end of b');
  });
  ids = [];
}

async function failover(report) {
  const instances = await Promise.all([Instance.start('a', 0), Instance.start('b', addresses.length > 1 ? 1 : 0)]);
  const accepted = new Map();
  const deadline = Date.now() + FAILOVER_MS;
  let next = 0;
  let repeated = 0;
  let until = Infinity;

  // A client of the service: it repeats a request with its id if the answer is not 201, with the other instance.
  async function client(first) {
    for (let number = next++; number < until; number = next++) {
      for (let turn = first; ; turn += 1) {
        holds(Date.now() < deadline, `orders are accepted within ${FAILOVER_MS} ms`);
        const answer = await instances[turn % 2].post(order(number)).catch((error) => ({ status: error.message }));
        if (answer.status === 201) break;
        repeated += 1;
        await sleep(100);
      }
      accepted.set(`o-${number}`, number);
      if (accepted.size % 20 === 0) faults.progress(accepted.size);
      if (until === Infinity && faults.at('restored')) until = number + 200;
      await sleep(5);
    }
  }

  await report.run('orders-accepted', async () => {
    await Promise.all([0, 1, 0, 1].map(client));
    const killed = faults.at('killed');
    holds(killed && faults.at('restored'), 'the leader was killed and started again');
    console.log(`     ${accepted.size} accepted, ${repeated} requests were repeated`);
  });
  await report.run('orders-settled', async () => {
    const found = await checkSettled(accepted);
    equal(
      [...found.keys()].filter((id) => !accepted.has(id)),
      [],
      'outcomes of orders nobody made',
    );
    const entries = await redis((client) => client.xRange(STREAM, '-', '+'));
    const there = new Set(entries.map(({ message }) => JSON.parse(message.data).orderId));
    equal(
      [...accepted.keys()].filter((id) => !there.has(id)),
      [],
      'accepted orders that are not in the stream',
    );
    const doubled = entries.length - there.size;
    const dead = [...found.values()].filter(([{ outcome }]) => outcome === 'orders:dead').length;
    console.log(
      `     ${entries.length} entries, ${doubled} of them doubled; ${found.size - dead} confirmed, ${dead} dead`,
    );
  });
  await report.run('orders-stop', async () => {
    for (const instance of instances) {
      equal(await instance.stop(), { code: 0, signal: null }, 'the end of an instance');
      equal(instance.log.at(-1), 'stopped', 'its last words');
    }
  });
}

await redis((client) => client.flushAll());
const { version } = createRequire(join(example, 'server.js'))('redis/package.json');
const report = new Report('orders-http (node-redis)', version, 3, part);
try {
  await (part === 'failover' ? failover(report) : plain(report));
} catch (error) {
  await report.run('start', () => Promise.reject(error));
}
report.end();
