// Recipe: alerts. Two numbers tell whether a group keeps up: its lag (entries that nobody was given yet) and the age of
// what is pending for longest (given to somebody who does not finish). Redis has both and watches neither.

export async function alerts(connection, { stream, group, alertLag, alertPendingMs }) {
  const [groups, pending] = await connection.run((redis) =>
    Promise.all([redis.xInfoGroups(stream), redis.xPending(stream, group)]),
  );
  const found = [];
  // Null where deletions have made the lag unknown; then only the age can tell.
  const lag = groups.find(({ name }) => name === group)?.lag ?? 0;
  if (lag > alertLag) found.push({ alert: 'lag', entries: lag, limit: alertLag });
  if (pending.firstId) {
    // An id begins with the time of its XADD.
    const age = Date.now() - Number(pending.firstId.split('-')[0]);
    if (age > alertPendingMs)
      found.push({ alert: 'oldest-pending', entry: pending.firstId, ms: age, limit: alertPendingMs });
  }
  return found;
}
