// The name under which the controller makes the VolumeAttachment of a CSI volume on a node, and the node looks for it.
// Upstream counterpart: getAttachmentName of pkg/volume/csi.
import { createHash } from "node:crypto";

export const attachmentName = (handle: string, driver: string, node: string): string =>
  `csi-${createHash("sha256").update(`${handle}${driver}${node}`).digest("hex")}`;
