// How a command reaches the cluster that a kubeconfig names.
import { AppError } from "#base/errors.ts";
import { moteVersion } from "#base/version.ts";
import { usageError } from "#cli/flags.ts";
import { Client } from "#client/client.ts";
import { createHttpTransport } from "#client/http-transport.ts";
import { readKubeconfig } from "#client/kubeconfig.ts";
import { readFileIfExists } from "#platform/files.ts";
import { createHttpClient, type HttpClient, type HttpResponse, readBody } from "#platform/http-client.ts";

export interface ClusterClient {
  readonly client: Client;
  readonly http: HttpClient;
  /** PEM; undefined: the kubeconfig names none. */
  readonly ca: string | undefined;
}

/** `command`: who says so when it cannot be. The caller closes `http`. */
export async function openClusterClient(kubeconfigPath: string, command: string): Promise<ClusterClient> {
  const text = (await readFileIfExists(kubeconfigPath))?.toString("utf8");
  if (text === undefined) {
    throw usageError(`${command}: there is no kubeconfig ${kubeconfigPath}; name one with --kubeconfig`);
  }
  const { server, insecureSkipTlsVerify, ca, cert, key, token, serverName } = await readKubeconfig(text, {
    async readFile(file) {
      const bytes = await readFileIfExists(file);
      if (!bytes) throw new AppError("KUBECONFIG_INVALID", `${kubeconfigPath}: there is no file ${file}`);
      return bytes.toString("utf8");
    },
  });
  const http = createHttpClient({
    ...{ baseUrl: server, insecureSkipTlsVerify },
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { serverName }),
  });
  const options = { userAgent: `mote/${moteVersion}`, ...(token === undefined ? {} : { token }) };
  return { client: new Client(createHttpTransport(options, { http })), http, ca };
}

/** As the servers' own user, whose password stands in the token. */
export const asServer = (password: string): Record<string, string> => ({
  authorization: `Basic ${Buffer.from(`server:${password}`).toString("base64")}`,
});

/** Of an answer other than 200: its message, or what it begins with. */
export async function refusalIn(response: HttpResponse): Promise<string> {
  const text = (await readBody(response, 65_536)).toString("utf8");
  try {
    return String((JSON.parse(text) as { message?: unknown }).message);
  } catch {
    return text.slice(0, 300);
  }
}
