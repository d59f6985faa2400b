// node-redis 3, as old programs use it: with callbacks, or with util.promisify (--style); through every case of cases.txt
// and through the leader's end.
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import redis from 'redis-3';
import { participant, patiently, plainCases } from './plain_cases.mjs';
import { failover, options, Report, STREAM } from './support.mjs';

const { address, faults, part, style } = options({ style: { type: 'string' } });

const callers = {
  callback: (client, name, rest) =>
    new Promise((resolve, reject) => {
      client[name](...rest, (error, reply) => (error ? reject(error) : resolve(reply)));
    }),
  promise: (client, name, rest) => promisify(client[name]).bind(client)(...rest),
};

async function connect(turn) {
  const make = (more) => {
    const client = redis.createClient({
      ...address(turn),
      // The setting that its readme shows: when to connect again.
      retry_strategy: ({ attempt }) => Math.min(attempt * 50, 500),
      ...more,
    });
    client.on('error', () => {});
    return client;
  };
  const client = make();
  const inBytes = make({ return_buffers: true });
  function send(to, name, rest) {
    if (to[name]) return callers[style](to, name, rest);
    return promisify(to.send_command).bind(to)(name, rest);
  }
  const exec = (queue) => promisify(queue.exec).bind(queue)();
  // Replies come with `null` for the whole after WATCH; errors of single commands stand among them.
  return {
    call: (name, ...rest) => send(client, name, rest),
    bytes: (name, ...rest) => send(inBytes, name, rest),
    batch: (commands) => exec(client.batch(commands)),
    multi: (commands) => exec(client.multi(commands)),
    close: () => [client, inBytes].forEach((one) => one.end(false)),
  };
}

// What node-redis 3 leaves to the program: a command without a reply when the connection ends is refused, with these codes.
const RETRYABLE =
  /^(UNCERTAIN_STATE|NR_CLOSED|CONNECTION_BROKEN|TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|UNKNOWN|UNBLOCKED)$/;

const { version } = createRequire(import.meta.url)('redis-3/package.json');
const report = new Report(`node-redis 3 ${style}`, version, 2, part);
if (part === 'failover') {
  const again = patiently((error) => RETRYABLE.test(error.code));
  await report.run(null, () =>
    failover(report, faults, async (turn) => participant(await connect(turn), STREAM, again)),
  );
} else {
  for (const [name, work] of Object.entries(await plainCases(connect))) await report.run(name, work);
}
report.end();
