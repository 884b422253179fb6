// The one failure of volumes that is the pod's own trouble and not the node's: the pod's worker tells it as an event and
// tries again, where any other error goes to the log.

/** A volume that cannot be made now; the text goes into the FailedMount event. */
export class VolumeError extends Error {
  override readonly name = "VolumeError";
}
