// `mote certificate check|rotate|rotate-ca`: how long certificates are good, new ones now, and new authorities. Works on the
// files of the data folder, of a server or of an agent. Counterpart: k3s certificate, whose words and shapes these are.
import { messageOf } from "#base/errors.ts";
import { certificateUsage } from "#cli/certificate-flags.ts";
import { type FlagValues, usageError } from "#cli/flags.ts";
import { columns } from "#cli/table.ts";
import { verbError } from "#cli/verbs.ts";
import { systemClock as clock } from "#platform/clock.ts";
import { exists, readFileIfExists } from "#platform/files.ts";
import { createHttpClient } from "#platform/http-client.ts";
import { systemRandom as random } from "#platform/random.ts";
import {
  type Authorities,
  authoritiesProblem,
  formatAuthorities,
  nextAuthorities,
  readAuthorities,
} from "#supervisor/authorities.ts";
import {
  type CertificateFacts,
  certificateFacts,
  certificateLine,
  certificateTable,
  residualText,
} from "#supervisor/certificate-check.ts";
import { agentServices, authorityPairs, servicePairs } from "#supervisor/certificate-services.ts";
import { rotateLeaves } from "#supervisor/leaf-rotation.ts";
import { serverName } from "#supervisor/load-balancer.ts";
import { askForRenewal } from "#supervisor/renewal-requests.ts";
import { formatToken, parseToken } from "#supervisor/tokens.ts";
import { asServer, refusalIn } from "./cluster-client.ts";
import type { ServerConfig } from "./config.ts";

/** The server checks and writes a handful of files. */
const timeoutMs = 30_000;

type Paths = Pick<ServerConfig, "dataDir" | "serverDir" | "agentDir" | "port">;

/** `args`: the verb. Resolves with the exit code. */
export async function certificate(args: readonly string[], values: FlagValues, config: Paths): Promise<number> {
  const [verb, ...rest] = args;
  if (rest.length > 0) throw verbError("certificate", verb, certificateUsage);
  if (verb === "check") return check(values, config);
  if (verb === "rotate") return rotate(values, config);
  if (verb === "rotate-ca") return rotateCa(values, config);
  throw verbError("certificate", verb, certificateUsage);
}

/** Which parts are meant, and whether this is a server, an agent, or both. */
async function scopeOf(values: FlagValues, { serverDir, agentDir, dataDir }: Paths) {
  const tlsFolder = (await exists(`${serverDir}/tls`)) ? `${serverDir}/tls` : undefined;
  const agentFolder = (await exists(`${agentDir}/client-kubelet.crt`)) ? agentDir : undefined;
  if (!tlsFolder && !agentFolder) throw usageError(`certificate: there are none in ${dataDir}; give --data-dir`);
  const named = (values["service"] as readonly string[] | undefined) ?? [];
  const unknown = named.find((name) => !Object.hasOwn(servicePairs, name));
  if (unknown !== undefined) {
    throw usageError(`service: "${unknown}" is not allowed; use one of ${Object.keys(servicePairs).join(", ")}`);
  }
  const services = named.length > 0 ? named : tlsFolder ? Object.keys(servicePairs) : agentServices;
  return { tlsFolder, agentFolder, services, isAll: named.length === 0 };
}

async function check(values: FlagValues, config: Paths): Promise<number> {
  const { tlsFolder, agentFolder, services, isAll } = await scopeOf(values, config);
  const pairs = (of: "server" | "agent") => services.flatMap((name) => servicePairs[name]?.[of] ?? []);
  const files = [
    ...(tlsFolder && isAll ? authorityPairs.map((pair) => `${tlsFolder}/${pair}.crt`) : []),
    ...(tlsFolder ? pairs("server").map((pair) => `${tlsFolder}/${pair}.crt`) : []),
    ...(agentFolder ? pairs("agent").map((pair) => `${agentFolder}/${pair}.crt`) : []),
  ];
  const found: { readonly file: string; readonly facts: readonly CertificateFacts[] }[] = [];
  for (const file of new Set(files)) {
    const pem = (await readFileIfExists(file))?.toString("utf8");
    if (pem !== undefined)
      found.push({ file, facts: certificateFacts(file.split("/").at(-1) ?? file, pem, clock.now()) });
  }
  const all = found.flatMap(({ facts }) => facts);
  const form = values["output"];
  if (form === "json") console.log(JSON.stringify({ Certificates: all }));
  else if (form === "text") console.log(all.map(certificateLine).join("\n"));
  else if (form === "wide") console.log(certificateTable(all));
  else console.log(shortTable(found, [tlsFolder, agentFolder]));
  return 0;
}

/**
 * What fits a terminal: of each file what it is there for, and what of the rest needs somebody. Authorities behind it have
 * files of their own. Two files may have one name, so their folders are told.
 */
function shortTable(
  found: readonly { readonly file: string; readonly facts: readonly CertificateFacts[] }[],
  folders: readonly (string | undefined)[],
): string {
  const nameOf = (file: string) => {
    const folder = folders.find((one) => one !== undefined && file.startsWith(`${one}/`));
    return folder === undefined ? file : file.slice(folder.length + 1);
  };
  const rows = found.flatMap(({ file, facts }) =>
    facts
      .filter((one, i) => i === 0 || one.Status !== "OK")
      .map((one) => [nameOf(file), one.Subject, one.ExpiryTime.slice(0, 10), residualText(one), one.Status]),
  );
  return columns([["FILE", "SUBJECT", "EXPIRES", "LEFT", "STATUS"], ...rows]);
}

async function rotate(values: FlagValues, config: Paths): Promise<number> {
  const { tlsFolder, agentFolder, services } = await scopeOf(values, config);
  const backup = await rotateLeaves({ tlsFolder, agentFolder, services, nowMs: clock.now() });
  if (backup !== undefined) {
    const isRunning = await askForRenewal(config.serverDir);
    console.log(`the certificates of before are in ${backup}`);
    console.log(isRunning ? "the server has issued new ones" : "new ones are issued when mote server starts");
  }
  if (agentFolder !== undefined) console.log("the agent asks for new ones when it starts, or within half a day");
  return 0;
}

async function rotateCa(values: FlagValues, config: Paths): Promise<number> {
  const tlsFolder = `${config.serverDir}/tls`;
  const current = await readAuthorities(tlsFolder);
  const ca = current.ServerCA;
  if (ca === undefined) throw usageError(`certificate: ${config.dataDir} is not that of a server; run it there`);
  const token = (await readFileIfExists(`${config.serverDir}/token`))?.toString("utf8") ?? "";
  const isForced = values["force"] === true;
  const next = await chosenAuthorities(values["path"] as string | undefined, current);
  const problem = authoritiesProblem(current, next, isForced);
  if (problem !== undefined) throw usageError(`certificate: ${problem}`);
  const { password } = parseToken(token);
  const server = String(values["server"] ?? `https://127.0.0.1:${config.port}`);
  const http = createHttpClient({ baseUrl: server, ca, trust: "keys", serverName });
  try {
    const response = await http.send({
      method: "PUT",
      path: `/v1-k3s/cert/cacerts?force=${isForced}`,
      headers: asServer(password),
      body: formatAuthorities(next, new Date(clock.now()).toISOString()),
      idleTimeoutMs: timeoutMs,
    });
    if (response.status !== 200)
      throw usageError(`certificate: ${server} answered ${response.status}: ${await refusalIn(response)}`);
    response.destroy();
  } catch (error) {
    throw usageError(`certificate: ${messageOf(error)}`);
  } finally {
    http.close();
  }
  console.log("The new authorities are saved. Restart every server; nodes that have joined go on.");
  if (next.ServerCA !== undefined) {
    console.log(`From then on new nodes join with\n${formatToken(next.ServerCA, "server", password)}`);
  }
  return 0;
}

/** As k3s's scripts leave them, in a folder `tls` or right there. */
async function chosenAuthorities(path: string | undefined, current: Authorities): Promise<Authorities> {
  if (path === undefined) return nextAuthorities(current, clock.now(), random);
  return readAuthorities((await exists(`${path}/tls`)) ? `${path}/tls` : path);
}
