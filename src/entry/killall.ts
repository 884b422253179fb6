import type { ServerConfig } from "./config.ts";
export async function killAll(_config: ServerConfig): Promise<number> {
  return 0;
}
