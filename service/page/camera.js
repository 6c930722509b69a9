// A picture from the camera.

const find = (name) => document.getElementById(`camera-${name}`);

/** Why there is no camera here, in words; empty: there may be one. */
export function whyNoCamera() {
  if (navigator.mediaDevices?.getUserMedia) return "";
  return window.isSecureContext
    ? "This browser has no access to cameras."
    : "Browsers give the camera to https and to localhost alone.";
}

/** What the browser said when the camera could not be had, in words. @param {unknown} error */
export function cameraRefused(error) {
  const said = {
    NotAllowedError: "The browser was not allowed to use the camera.",
    NotFoundError: "There is no camera here.",
    NotReadableError: "The camera is in use by another program.",
  };
  return said[error?.name] ?? `The camera cannot be used: ${error?.message ?? error}`;
}

/** Show what the camera sees until a picture is taken. @param {(file: Blob) => void} take */
export async function openCamera(take) {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("camera"));
  const video = /** @type {HTMLVideoElement} */ (find("video"));
  find("error").textContent = whyNoCamera();
  find("take").disabled = true;
  dialog.showModal();
  let stream = null;
  const stop = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  dialog.addEventListener("close", stop, { once: true });
  find("close").onclick = () => dialog.close();
  find("take").onclick = async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((file) => file && take(file), "image/jpeg", 0.95);
    dialog.close();
  };
  if (whyNoCamera()) return;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!dialog.open) return stop();
    video.srcObject = stream;
    await video.play();
    find("take").disabled = false;
  } catch (error) {
    find("error").textContent = cameraRefused(error);
  }
}
