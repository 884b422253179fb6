// The kubeconfig of whoever administers the cluster from the server's machine: written once the port answers, so that its
// presence means something, and again when its certificate is renewed. Upstream counterpart: pkg/server of k3s.
import { AppError, messageOf } from "#base/errors.ts";
import { type Service, untilAborted } from "#base/service.ts";
import { formatKubeconfig } from "#client/kubeconfig.ts";
import { makeFolder, writeFileDurable } from "#platform/files.ts";
import type { Pki } from "#supervisor/pki.ts";
import type { ServerContext } from "./server-context.ts";

/** `onWritten`: the API can be used by now. */
export function createKubeconfigFile(
  { config, pki, log }: Pick<ServerContext, "config" | "pki" | "log">,
  onWritten: () => void,
): Service {
  const textOf = ({ serverCa, clientAdmin }: Pki) =>
    formatKubeconfig({
      name: "default",
      server: `https://127.0.0.1:${config.port}`,
      ca: serverCa.certificate,
      cert: clientAdmin.certificate,
      key: clientAdmin.key,
    });
  const write = (of: Pki) => writeFileDurable(config.kubeconfigPath, textOf(of), config.kubeconfigMode);
  return {
    name: "kubeconfig",
    async run(signal, ready) {
      const folder = config.kubeconfigPath.replace(/\/[^/]*$/, "") || "/";
      try {
        await makeFolder(folder);
        await write(pki.current);
      } catch (error) {
        const message = `cannot write the kubeconfig: ${messageOf(error)}; name another place with --write-kubeconfig`;
        throw new AppError("STARTUP", message, {}, { cause: error });
      }
      log.info("kubeconfig written", { path: config.kubeconfigPath });
      onWritten();
      ready();
      const stop = pki.onRenewal(write);
      await untilAborted(signal);
      stop();
    },
  };
}
