// How the seats of the server are shared out: what is a priority level's by right, what of it may be lent, how far it may
// borrow, and who gets how much now, given what each asks for. Pure.
// Upstream counterpart: apf_controller.go (updateBorrowingLocked) and conc_alloc.go; instead of solving for one
// proportion every ten seconds, what is not asked for is handed to those who ask, by their shares.

export interface LevelShares {
  readonly name: string;
  readonly shares: number;
  readonly lendablePercent: number;
  /** Undefined: as much as there is. */
  readonly borrowingLimitPercent: number | undefined;
}

export interface SeatLimits {
  /** By right. */
  readonly nominal: number;
  /** What it keeps whatever others ask for. */
  readonly lower: number;
  /** What it may have with what others lend. */
  readonly upper: number;
}

export function seatLimits(total: number, levels: readonly LevelShares[]): SeatLimits[] {
  const sum = levels.reduce((all, level) => all + level.shares, 0);
  return levels.map(({ shares, lendablePercent, borrowingLimitPercent }) => {
    const nominal = sum === 0 ? 0 : Math.ceil((total * shares) / sum);
    const lent = Math.round((nominal * lendablePercent) / 100);
    const borrowed = borrowingLimitPercent === undefined ? total : Math.round((nominal * borrowingLimitPercent) / 100);
    return { nominal, lower: nominal - lent, upper: Math.max(nominal, Math.min(total, nominal + borrowed)) };
  });
}

export interface LevelDemand extends SeatLimits {
  /** Seats that were in use or asked for at one time. */
  readonly demand: number;
}

/** What each may use now: never below its lower nor above its upper limit, together no more than all nominal ones. */
export function shareSeats(levels: readonly LevelDemand[]): number[] {
  const kept = levels.map(({ lower, nominal, demand }) => Math.max(lower, Math.min(nominal, demand)));
  const wanted = levels.map(({ nominal, upper, demand }) => Math.max(0, Math.min(upper, demand) - nominal));
  const free = levels.reduce((sum, { nominal }, i) => sum + nominal - kept[i]!, 0);
  const granted = grant(
    Math.min(
      free,
      wanted.reduce((sum, want) => sum + want, 0),
    ),
    wanted,
    levels.map(({ nominal }) => nominal),
  );
  // What nobody borrowed goes back to whose it is.
  const lent = granted.reduce((sum, seats) => sum + seats, 0);
  const share = free === 0 ? 0 : (free - lent) / free;
  return levels.map(({ nominal }, i) => kept[i]! + granted[i]! + Math.floor((nominal - kept[i]!) * share));
}

/** Hands `seats` to those who want some, by weight; nobody gets more than it wants, and nothing is left over. */
function grant(seats: number, wanted: readonly number[], weights: readonly number[]): number[] {
  const granted = wanted.map(() => 0);
  let left = seats;
  while (left > 0) {
    const open = wanted.map((_, i) => i).filter((i) => granted[i]! < wanted[i]!);
    const weight = open.reduce((sum, i) => sum + Math.max(1, weights[i]!), 0);
    const round = left;
    for (const i of open) {
      const part = Math.max(1, Math.floor((round * Math.max(1, weights[i]!)) / weight));
      const given = Math.min(part, wanted[i]! - granted[i]!, left);
      granted[i]! += given;
      left -= given;
    }
  }
  return granted;
}
