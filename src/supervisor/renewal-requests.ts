// How `mote certificate rotate` tells the server of its data folder that pairs are missing.
import type { Service } from "#base/service.ts";
import { askControlSocket, controlSocket } from "#platform/control-socket.ts";
import type { LivePki } from "./live-pki.ts";

const socketIn = (serverDir: string): string => `${serverDir}/certificates.sock`;

export const createCertificateRequests = (serverDir: string, pki: LivePki): Service =>
  controlSocket("certificate-requests", socketIn(serverDir), async () => {
    await pki.renew();
    return "done";
  });

/** False: no server runs there. */
export const askForRenewal = async (serverDir: string): Promise<boolean> =>
  (await askControlSocket(socketIn(serverDir), { command: "renew" })) !== undefined;
