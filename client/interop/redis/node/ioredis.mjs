// ioredis through every case of cases.txt and through the leader's end.
import { createRequire } from 'node:module';
import Redis from 'ioredis';
import { participant, plainCases } from './plain_cases.mjs';
import { failover, options, Report, STREAM } from './support.mjs';

const { address, faults, part, protocol } = options();

// [[error, reply], ...] as replies and errors; null after WATCH.
const flat = (replies) => replies && replies.map(([error, reply]) => error ?? reply);

async function connect(turn, more = {}) {
  const redis = new Redis({ ...address(turn), protocol, ...more });
  redis.on('error', () => {});
  const chain = (start, commands) => commands.reduce((at, [name, ...rest]) => at[name](...rest), start);
  return {
    call: (name, ...rest) => (redis[name] ? redis[name](...rest) : redis.call(name, ...rest)),
    bytes: (name, ...rest) => redis[`${name}Buffer`](...rest),
    batch: async (commands) => flat(await chain(redis.pipeline(), commands).exec()),
    multi: async (commands) => flat(await chain(redis.multi(), commands).exec()),
    close: () => redis.disconnect(),
  };
}

// Everything by ioredis's own settings: it sends again what had no reply (autoResendUnfulfilledCommands, on by default), as
// often as it takes, and what was refused for the moment.
const settings = {
  maxRetriesPerRequest: null,
  retryStrategy: (times) => Math.min(times * 50, 500),
  reconnectOnError: (error) =>
    /^(TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|UNKNOWN|UNBLOCKED)/.test(error.message) ? 2 : false,
};

const { version } = createRequire(import.meta.url)('ioredis/package.json');
const report = new Report('ioredis', version, protocol, part);
if (part === 'failover') {
  const connected = async (turn) => participant(await connect(turn, settings), STREAM, (call) => call());
  await report.run(null, () => failover(report, faults, connected));
} else {
  for (const [name, work] of Object.entries(await plainCases(connect))) await report.run(name, work);
}
report.end();
