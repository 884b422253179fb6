// Where a server of the cluster is reached.

export interface ServerAddress {
  readonly ip: string;
  readonly port: number;
}

/** HOST:PORT, as URLs and certificates' askers write it. */
export const addressText = ({ ip, port }: ServerAddress): string => `${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
