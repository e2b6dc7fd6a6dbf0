// In place of dcmjs, xmlbuilder2 and js-yaml: the page gets voxels from the server, and reads no DICOM and no XML.
const logger = () => ({ trace() {}, debug() {}, info() {}, warn: console.warn, error: console.error, setLevel() {}, getLogger: logger });
class Unused {}
export const log = logger();
export const constants = new Proxy({}, { get: () => "" });
export const data = { DicomMetaDictionary: { dictionary: {}, nameMap: DICOM_NAMES } }; // from build.js
export const utilities = { DicomMetadataListener: Unused };
export const create = () => { throw new Error("XML is not read here"); };
export default { log, constants, data, utilities, async: { AsyncDicomReader: Unused } };
