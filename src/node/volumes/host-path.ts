// hostPath volumes: a path of the machine, made or checked as its type says.
import { makeFolder } from "#platform/files.ts";
import { kindOf, writePlainFile } from "#platform/folders.ts";
import { ConfigError } from "../pods/env.ts";

export async function ensureHostPath(path: string, type: string): Promise<string> {
  const kind = await kindOf(path);
  const must = (wanted: string, text: string) => {
    if (kind !== wanted) throw new ConfigError(`hostPath type check failed: ${path} is not ${text}`);
  };
  switch (type) {
    case "":
      // containerd makes a missing folder, as Docker did.
      if (kind === undefined) await makeFolder(path, 0o755);
      break;
    case "DirectoryOrCreate":
      if (kind === undefined) await makeFolder(path, 0o755);
      else must("folder", "a directory");
      break;
    case "Directory":
      must("folder", "a directory");
      break;
    case "FileOrCreate":
      if (kind === undefined) await writePlainFile(path, "", 0o644);
      else must("file", "a file");
      break;
    case "File":
      must("file", "a file");
      break;
    case "Socket":
      must("socket", "a socket file");
      break;
    case "CharDevice":
      must("character-device", "a character device");
      break;
    case "BlockDevice":
      must("block-device", "a block device");
      break;
    default:
      throw new ConfigError(`${type} is an invalid volume type`);
  }
  return path;
}
