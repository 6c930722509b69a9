// The embedded student's sample pictures, with texts whose instances it finds on them.

export const SAMPLES = [
  { file: "pets.jpg", name: "Pets", texts: ["dog", "cat", "animal"] },
  { file: "fruit.jpg", name: "Fruit", texts: ["apple", "banana", "strawberry"] },
  { file: "street.jpg", name: "Street", texts: ["tree", "bicycle"] },
  { file: "farm.jpg", name: "Farm", texts: ["tractor", "pig", "animal"] },
  { file: "shapes.jpg", name: "Shapes", texts: ["triangle", "pentagon", "purple square"] },
];

/** @param {string} file */
export const sampleUrl = (file) => new URL(`samples/${file}`, import.meta.url).href;
