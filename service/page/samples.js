// The embedded student's sample pictures, and what is in them.

export const SAMPLES = [
  { file: "pets.jpg", name: "Pets", texts: ["dog", "cat", "animal"] },
  { file: "fruit.jpg", name: "Fruit", texts: ["apple", "banana", "fruit"] },
  { file: "street.jpg", name: "Street", texts: ["car", "bus", "tree"] },
  { file: "farm.jpg", name: "Farm", texts: ["sheep", "tractor", "animal"] },
  { file: "shapes.jpg", name: "Shapes", texts: ["triangle", "caterpillar", "purple square"] },
];

/** @param {string} file */
export const sampleUrl = (file) => new URL(`samples/${file}`, import.meta.url).href;
